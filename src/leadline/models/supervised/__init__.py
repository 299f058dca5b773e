"""The supervised family of models."""
