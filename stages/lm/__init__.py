"""The language model itself, with NumPy only: its parameters and layers, what it writes, what it makes of a text."""
