"""What a night decides: whether a corpus is fit to train on, and whether a new model is better."""
