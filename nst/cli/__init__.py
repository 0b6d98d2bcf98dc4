"""The `nst` command: its root, the code that commands share, `nst optimize` and `nst color`."""
