"""Play, record and resume runs and sweeps."""
