"""Runs a model in ONNX Runtime: providers, signature, tiles."""
