"""The processes of the node, and what keeps them alive and apart."""
