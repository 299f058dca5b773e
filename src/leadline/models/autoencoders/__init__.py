"""The autoencoders family of models."""
