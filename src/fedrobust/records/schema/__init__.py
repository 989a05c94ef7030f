"""What records hold, each once: what is read is checked to be of these shapes."""
