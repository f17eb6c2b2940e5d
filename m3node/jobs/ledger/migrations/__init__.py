"""How the ledger's tables came to be, release by release (Alembic); `m3node.jobs.ledger.database.prepare` runs them."""
