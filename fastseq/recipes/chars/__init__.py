"""Learn to write a text, character by character."""

COMMAND = "train chars"
