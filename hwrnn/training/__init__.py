"""Training of float models."""
