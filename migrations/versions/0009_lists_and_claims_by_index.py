"""Lists, claims and pages of metrics come in the order of an index; a schema says which code may use it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    floor = op.create_table(
        "schema_floor",
        sa.Column("id", INT, nullable=False),
        sa.Column("revision", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schema_floor"),
    )
    op.bulk_insert(floor, [{"id": 1, "revision": revision}])  # what came before knows of no floor
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
    op.drop_table("schema_floor")
    op.create_index("ix_jobs_owner_created_at", "jobs", ["owner", "created_at"])
    op.create_index(
        "ix_jobs_state_pool_priority_queued_at", "jobs", ["state", "pool", "priority", "queued_at"]
    )
    op.drop_index("ix_metrics_job_id_step_name", "metrics")
    op.drop_index("ix_jobs_owner_name_id", "jobs")
    op.drop_index("ix_jobs_owner_state_id", "jobs")
    op.drop_index("ix_jobs_owner_id", "jobs")
    op.drop_index("ix_jobs_claim", "jobs")
