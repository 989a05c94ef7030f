"""A leaderboard: its protocol, and the results that are made from finished runs."""
