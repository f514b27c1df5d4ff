"""The language model itself, with NumPy only: its parameters and layers, sampling, scoring, the n-gram beside it."""
