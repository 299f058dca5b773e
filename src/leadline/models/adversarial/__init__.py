"""The adversarial family of models."""
