"""Arrow tables: the index table, the vocabulary, the history of a training."""
