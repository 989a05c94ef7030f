"""The page of a sweep: its records, its tables and its figures."""
