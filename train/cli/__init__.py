"""The commands `nst train`, `export`, `score` and `bench`."""
