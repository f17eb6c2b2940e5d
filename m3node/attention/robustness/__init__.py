"""The same question about an image that was changed a little, and the same image asked in other words."""
