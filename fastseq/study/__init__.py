"""Studies: what the lectures claim, measured and drawn."""
