"""How instances come in: listener, watched folder, spool, index, stacks, completeness, eligibility, manifests."""
