"""What is told of a finished run: words, charts, Markdown and a page."""
