"""Federated adversarial training on real digits: a Flower app."""
