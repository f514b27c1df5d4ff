"""The graph of the stages, what is reused and why, the run itself, and where its settings come from."""
