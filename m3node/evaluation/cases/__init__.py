"""Cases that a detector is judged on: where they lie, what is in them, and how phantom cases are made."""
