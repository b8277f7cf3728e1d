"""The tables as the code knows them, in the modules `…_tables`: here what they share, and the tables of processes.

`migrations/` creates them, and a test compares the two. Times are Unix seconds in double precision, as in the record,
so that a row and its record are equal to the last bit on every database. (In SQL, `to_timestamp(started)` reads them.)
"""

from sqlalchemy import Column, Double, Index, MetaData, Table, Text, text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def index_of(*columns: str, where: str, name: str | None = None) -> Index:
    """A partial index: rows that don't meet the condition cost it nothing."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


# Work that one worker does at a time.
leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", Double, nullable=False),
)

compatible_programs = Table(
    "compatible_programs",
    metadata,
    Column("tables", Text, primary_key=True),  # the revision of the tables
    Column("program", Text, primary_key=True),  # the newest revision that a program knows which works with them
)
