"""Measure how far a network's features move under translation, scaling and rotation."""

COMMAND = "study invariance"
