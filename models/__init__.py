"""The transformer networks."""
