"""What finds lesions: the protocols, the registry of entry points, and the embedded detector."""
