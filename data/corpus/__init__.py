"""Corpora: the ones that have a name, the bytes of one, and its text as tokens, part by part."""
