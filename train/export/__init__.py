"""Turns a trained network into checked ONNX files: fp32, fp16 and int8."""
