"""What people are told of a finished run: words, charts, Markdown and a page, made outside any key."""
