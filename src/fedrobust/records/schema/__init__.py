"""The contents of each kind of record. What is read is checked against these classes."""
