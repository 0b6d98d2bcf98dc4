"""The `nst` command: its root, what commands share, and the commands of this folder."""
