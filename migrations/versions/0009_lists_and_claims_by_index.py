"""Lists, claims and pages of metrics come in the order of an index."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_jobs_claim",
        "jobs",
        ["state", "wanted", "pool", sa.text("priority DESC"), "queued_at", "not_before"],
    )
    op.create_index("ix_jobs_owner_id", "jobs", ["owner", "id"])
    op.create_index("ix_jobs_owner_state_id", "jobs", ["owner", "state", "id"])
    op.create_index("ix_jobs_owner_name_id", "jobs", ["owner", "name", "id"])
    op.create_index("ix_metrics_job_id_step_name", "metrics", ["job_id", "step", "name"])
    op.drop_index("ix_jobs_state_pool_priority_queued_at", "jobs")
    op.drop_index("ix_jobs_owner_created_at", "jobs")
    op.drop_index("ix_jobs_owner_state", "jobs")


def downgrade() -> None:
    op.create_index("ix_jobs_owner_state", "jobs", ["owner", "state"])
    op.create_index("ix_jobs_owner_created_at", "jobs", ["owner", "created_at"])
    op.create_index(
        "ix_jobs_state_pool_priority_queued_at", "jobs", ["state", "pool", "priority", "queued_at"]
    )
    op.drop_index("ix_metrics_job_id_step_name", "metrics")
    op.drop_index("ix_jobs_owner_name_id", "jobs")
    op.drop_index("ix_jobs_owner_state_id", "jobs")
    op.drop_index("ix_jobs_owner_id", "jobs")
    op.drop_index("ix_jobs_claim", "jobs")
