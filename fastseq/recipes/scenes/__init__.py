"""Tell handwritten digits, or pets, from what is around them, pixel by pixel."""

COMMAND = "train scenes"
