"""Tables of files and uploads, and of the blobs that belong to neither.

Times are Unix seconds, as in `tables`. Contents are in blobs (`blobs/`), which rows name.
"""

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, Table, Text

from quarterdeck.store.tables import index_of, metadata

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=True),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("mime", Text, nullable=False),  # by the content
    Column("sha256", Text, nullable=False),
    Column("blob", Text, nullable=False, unique=True),
    Column("is_counted", Boolean, nullable=False),  # in `file_usage`
    Column("is_missing", Boolean, nullable=False),  # its blob is gone
    Index("ix_files_org", "org", "team", "created", "id"),
    index_of("expires", where="expires IS NOT NULL"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),  # that the parts have together
    Column("mime", Text, nullable=False),  # as its client says
    Column("file_seconds", Integer, nullable=True),  # after which the file expires
    Column("status", Text, nullable=False),  # pending, completed, cancelled, expired
    Column("file", Text, nullable=True),
    Index("ix_uploads_expires", "expires"),
    Index("ix_uploads_org", "org"),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("upload", Text, nullable=False),
    Column("org", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("blob", Text, nullable=False),
    Index("ix_upload_parts_upload", "upload"),
    Index("ix_upload_parts_org", "org"),
)

# What an organisation stores in files and parts, kept with them: a quota is checked and taken in one statement.
file_usage = Table(
    "file_usage",
    metadata,
    Column("org", Text, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)

# Blobs that no row refers to: not yet, or not any more. Named before they are written, and in the transaction that
# deletes their row, so that a killed process leaves none behind.
unclaimed_blobs = Table(
    "unclaimed_blobs",
    metadata,
    Column("name", Text, primary_key=True),
    Column("due", Double, nullable=False),  # when it may be deleted
    Index("ix_unclaimed_blobs_due", "due"),
)
