"""Indexes for lists that are shown page by page, the newest first."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the indexes."""
    op.create_index(
        op.f("ix_study_last_received_at_study_instance_uid"), "study", ["last_received_at", "study_instance_uid"]
    )
    for table in ("series", "run", "delivery"):
        # Who looks for the parts of a study in some state must not go through all parts in that state.
        op.drop_index(op.f(f"ix_{table}_study_instance_uid"), table)
        op.create_index(op.f(f"ix_{table}_study_instance_uid_state"), table, ["study_instance_uid", "state"])
    op.create_index(op.f("ix_series_state"), "series", ["state"])
    op.create_index(op.f("ix_run_created_at_run"), "run", ["created_at", "run"])
    op.create_index(op.f("ix_run_state_created_at_run"), "run", ["state", "created_at", "run"])
    op.create_index(op.f("ix_delivery_state_finished_at"), "delivery", ["state", "finished_at"])
