"""The language model itself: its parameters, its training engine, its sampler and its metrics."""
