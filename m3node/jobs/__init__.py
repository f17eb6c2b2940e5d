"""Strings the stages together: the answer to a manifest, the durable engine, the ledger, and the node's processes."""
