"""What an evaluation writes: tables, plots and pictures, each of which says what was looked at and how."""
