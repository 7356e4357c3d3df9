"""Learn five classes, then five others from few labels: in four ways, side by side."""

COMMAND = "train transfer"
