"""Many documents: the files, members and rows that they are read from, and how they become one text."""
