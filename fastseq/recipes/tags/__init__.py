"""Find the names of people, places and organisations in sentences."""

COMMAND = "train tags"
