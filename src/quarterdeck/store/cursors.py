"""Where a page of a list begins."""

from sqlalchemy import ColumnElement, Table, tuple_


def beyond(table: Table, created: float, id: str, *, is_descending: bool = True) -> ColumnElement[bool]:
    """The condition of rows that come after this one in the order of creation, then of ids.

    One comparison of pairs: PostgreSQL starts at that place of an index. With `created < … OR …` it reads
    the index from its beginning."""
    place, here = tuple_(table.c.created, table.c.id), (created, id)
    return place < here if is_descending else place > here
