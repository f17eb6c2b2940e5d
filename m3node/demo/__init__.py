"""The demonstration: a phantom, a small archive and the node, talking over real associations."""
