"""Measure what LRN and overlapping pooling do to accuracy and to the time of a step."""

COMMAND = "study lrn"
