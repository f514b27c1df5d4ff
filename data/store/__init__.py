"""The artifact store: folders that are there whole or not at all, what their keys are made of, the champion."""
