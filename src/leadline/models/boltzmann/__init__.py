"""The boltzmann family of models."""
