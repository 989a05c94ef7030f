"""Measure the hot paths on this machine, each beside the plain way to do the same."""
