"""Transfers the colours of one image to another, and compares the methods."""
