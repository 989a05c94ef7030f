"""The rounds of a federation: who takes part, what an attacker sees, what the server does."""
