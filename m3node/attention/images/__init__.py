"""What is shown: finding images by their id, reading them, and the body in them."""
