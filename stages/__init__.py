"""The four stages that turn a text into a language model, and the command line over them. Knows nothing of Prefect."""
