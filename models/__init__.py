"""The transformer networks, and the base networks that ship with nst."""
