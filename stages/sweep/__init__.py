"""Many trainings of one pipeline, side by side."""
