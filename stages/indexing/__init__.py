"""From a text to ids, part by part: which documents are in which split, and what is done to each part."""
