"""The flows family of models."""
