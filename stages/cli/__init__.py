"""The command line, ``rnnlm``."""
