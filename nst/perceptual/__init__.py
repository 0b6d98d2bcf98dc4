"""VGG-19, the perceptual losses, and the optimiser of pixels (Gatys et al.)."""
