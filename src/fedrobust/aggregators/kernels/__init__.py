"""What the rules compute with: distances, sums and order, on any device."""
