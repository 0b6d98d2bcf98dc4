"""The losses of training beside the perceptual one."""
