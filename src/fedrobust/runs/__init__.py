"""Runs and sweeps: played, recorded, resumed."""
