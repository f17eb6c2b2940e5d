"""Hostile peers, made from a seed: what they say, how it is said to a node, and what is looked at afterwards."""
