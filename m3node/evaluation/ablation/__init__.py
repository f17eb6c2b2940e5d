"""The ablation: which conditions a detector is run in, how, and what is kept of each run."""
