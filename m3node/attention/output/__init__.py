"""What a run leaves in its folder: rows, grids, pictures and the report."""
