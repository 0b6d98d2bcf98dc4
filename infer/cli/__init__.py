"""The commands `nst image`, `video`, `webcam`, `inspect`, `flicker` and `info`."""
