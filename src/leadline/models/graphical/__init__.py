"""The graphical family of models."""
