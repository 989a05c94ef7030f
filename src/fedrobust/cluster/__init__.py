"""The way to more than one machine: connect to a Ray cluster, and ask each of its nodes."""
