"""Reports the devices, the CPU features and the limits of this process."""
