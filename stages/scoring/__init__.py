"""What a model makes of each of many texts, lines, documents or rows, read side by side; and the table of that."""
