"""The pipeline: the graph of the stages, what is reused and why, and the run itself."""
