"""Nights: a guard before training, the comparison with the champion, and what follows from both."""
