"""What the model says and where it looked: one grid for each question, in one of four modes."""
