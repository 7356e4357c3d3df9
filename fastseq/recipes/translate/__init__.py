"""Translate numbers from words to digits."""
