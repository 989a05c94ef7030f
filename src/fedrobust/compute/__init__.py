"""How things are computed."""
