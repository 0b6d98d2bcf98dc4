"""A style image becomes a model."""
