"""What the answer to one manifest is made of: its steps, its record, and the reasons for having none."""
