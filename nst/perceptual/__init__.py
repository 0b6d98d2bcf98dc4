"""VGG-19, the perceptual losses, and the optimiser of Gatys et al."""
