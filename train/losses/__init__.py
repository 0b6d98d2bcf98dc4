"""The losses of training besides the perceptual loss."""
