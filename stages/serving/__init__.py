"""What answers other programs over HTTP: `rnnlm serve`."""
