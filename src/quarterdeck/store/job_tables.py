"""Tables of jobs, and of secrets that processes of the platform share. Times are Unix seconds, as in `tables`."""

from sqlalchemy import Column, Double, Integer, LargeBinary, Table, Text

from quarterdeck.store.tables import index_of, metadata

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("org", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("key", Text, nullable=False),  # who pays
    Column("subject", Text, nullable=False),  # the object that the job is for
    Column("state", Text, nullable=False),  # waiting, running, done, failed, cancelled
    Column("priority", Integer, nullable=False),
    Column("due", Double, nullable=False),  # when it may be claimed: of a running one, the end of its lease
    Column("deadline", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("lease", Text, nullable=True),
    Column("created", Double, nullable=False),
    Column("finished", Double, nullable=True),
    Column("error", Text, nullable=True),  # of the last attempt that failed
    Column("payload", LargeBinary, nullable=True),  # both are removed when the job ends
    Column("progress", LargeBinary, nullable=True),
    index_of("kind", "org", "due", where="finished IS NULL", name="ix_jobs_kind_org_due"),
    index_of("finished", where="finished IS NOT NULL", name="ix_jobs_finished"),
    index_of("lease", where="lease IS NOT NULL", name="ix_jobs_lease"),
    index_of("org", "subject", where="finished IS NULL", name="ix_jobs_org_subject"),
)

platform_secrets = Table(
    "platform_secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    Column("created", Double, nullable=False),
)
