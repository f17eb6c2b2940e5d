"""What the node counts: each process for itself, put together when somebody asks."""
