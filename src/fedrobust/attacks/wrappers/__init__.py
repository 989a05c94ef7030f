"""Wrappers: attacks that hold another attack and change what it does."""
