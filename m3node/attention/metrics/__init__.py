"""Numbers about one grid, and about several grids of the same image (docs/attention.md has every formula)."""
