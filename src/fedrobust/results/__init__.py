"""What a user holds in Python: a run, a sweep or an audit, played just now or opened again."""
