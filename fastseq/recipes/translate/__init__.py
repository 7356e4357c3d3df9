"""Translate numbers from words to digits."""

COMMAND = "train translate"
