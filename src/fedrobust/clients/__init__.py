"""Clients: what one client does in a round."""
