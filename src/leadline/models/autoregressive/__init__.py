"""The autoregressive family of models."""
