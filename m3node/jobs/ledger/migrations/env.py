"""What Alembic runs to migrate: on the connection that it is given, in the transaction that is open there."""

from __future__ import annotations

from alembic import context

from m3node.jobs.ledger.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite changes a table by copying it.
    render_as_batch=True,
)
context.run_migrations()
