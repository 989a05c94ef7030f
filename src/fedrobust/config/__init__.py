"""Read, check, explain and write the values of a config."""
