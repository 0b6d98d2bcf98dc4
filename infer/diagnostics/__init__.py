"""Measures models and machines: artefacts, flicker, speed."""
