"""Transfers colours from one image to another, and compares the methods."""
