"""Classify handwritten digits from the sequence of their rows."""

COMMAND = "train rows"
