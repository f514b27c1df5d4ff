"""The artifact store: folders that are there whole or not at all, their keys, the champion, what may go."""
