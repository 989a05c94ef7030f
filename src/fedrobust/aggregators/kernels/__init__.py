"""The arithmetic of the rules: distances, sums and order, on any device."""
