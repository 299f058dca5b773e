"""The structure family of models."""
