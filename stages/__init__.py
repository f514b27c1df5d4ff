"""What turns a text into a language model: the four stages, their settings, and folders. Knows nothing of Prefect."""

from data.store import loaded

loaded.record()
