"""Learn to write a text, character by character."""
