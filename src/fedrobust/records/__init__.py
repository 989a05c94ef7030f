"""What stored files hold, and how files that may be anybody's are read."""
