"""Models, in families; one file a model."""
