"""The page of a reproduction: its places, its tables and its figures."""
