"""Inserts ledger rows, many at once: SQLAlchemy's processing of each value would cost more than the row.

SQLite's driver gets tuples (`executemany`), PostgreSQL a column each as an array, in one statement. Both statements are
made of the table, and executed by SQLAlchemy's connection, so that transactions and errors are its own.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from typing import Any

import msgspec
from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Integer
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.record import TRACE_ONLY, RequestRecord
from quarterdeck.store.exact import ExactDecimal, exact_text
from quarterdeck.store.ledger_tables import ledger

MAX_TEXT = 512
"""Characters stored of free text from the request: `user`, `session`."""
FIELDS = (*(name for name in RequestRecord.__struct_fields__ if name not in TRACE_ONLY), "caller_trace_id")
"""Attributes of a record that the ledger has, in the order of `values_of`."""

_INT64 = 2**63
_AT = {name: at for at, name in enumerate(FIELDS)}
_COLUMNS = [ledger.c[name] for name in FIELDS]
_MONEY = tuple(at for at, column in enumerate(_COLUMNS) if isinstance(column.type, ExactDecimal))
_DOUBLES = tuple(at for at, column in enumerate(_COLUMNS) if isinstance(column.type, Double))
_ID, _USER, _SESSION = _AT["id"], _AT["user"], _AT["session"]
_MAX_TOKENS, _SEED = _AT["max_tokens"], _AT["seed"]
_TAGS, _ATTEMPTS = _AT["tags"], _AT["attempts"]
_TEXTS = tuple(at for at, column in enumerate(_COLUMNS) if column.type.python_type is str and at not in _MONEY)

_get = attrgetter(*FIELDS)
_get_texts: Callable[[Sequence[Any]], tuple[Any, ...]] = itemgetter(*_TEXTS)
_encode = msgspec.json.Encoder().encode


def values_of(record: RequestRecord) -> list[Any]:
    """The values of a record's row, in the order of FIELDS: money and JSON as text.

    Values that PostgreSQL cannot store are dropped rather than the row: NUL in text, a seed beyond 64 bits. Raises
    ValueError for money that is not finite, and TypeError for a value of the wrong type.
    """
    values = list(_get(record))
    for at in _MONEY:
        values[at] = exact_text(values[at])
    for at in _DOUBLES:
        value = values[at]
        if value is not None and type(value) is not float:
            values[at] = float(value)  # SQLite would store text in a column of numbers
    if (user := values[_USER]) is not None and len(user) > MAX_TEXT:
        values[_USER] = user[:MAX_TEXT]
    if (session := values[_SESSION]) is not None and len(session) > MAX_TEXT:
        values[_SESSION] = session[:MAX_TEXT]
    for at in (_MAX_TOKENS, _SEED):
        value = values[at]
        if value is not None and not -_INT64 <= value < _INT64:
            values[at] = None
    values[_ATTEMPTS] = _encode(values[_ATTEMPTS]).decode()
    if tags := record.all_tags:
        values[_TAGS] = _encode([tag.replace("\x00", "�") for tag in tags]).decode()
    else:
        values[_TAGS] = "[]"
    if "\x00" in "".join([text for text in _get_texts(values) if text]):
        for at in _TEXTS:
            if values[at]:
                values[at] = values[at].replace("\x00", "�")
    return values


async def insert_in_sqlite(connection: AsyncConnection, records: Sequence[RequestRecord]) -> int:
    """Returns how many rows were inserted or replaced."""
    return (await connection.exec_driver_sql(_SQLITE, [tuple(values_of(record)) for record in records])).rowcount


async def insert_in_postgres(connection: AsyncConnection, records: Sequence[RequestRecord]) -> int:
    """Returns how many rows were inserted or replaced."""
    columns = [list(column) for column in zip(*[values_of(record) for record in records], strict=True)]
    return (await connection.exec_driver_sql(_POSTGRES, tuple(columns))).rowcount


def _array_type(column: Column[Any]) -> str:
    """The type of an array of a column's values, as they are sent."""
    for kind, name in ((BigInteger, "bigint"), (Integer, "integer"), (Boolean, "boolean"), (Double, "float8")):
        if isinstance(column.type, kind):
            return name
    return "text"


def _value(column: Column[Any]) -> str:
    """A column's value, of what is sent."""
    cast = "::numeric" if isinstance(column.type, ExactDecimal) else "::json" if isinstance(column.type, JSON) else ""
    return f'"{column.name}"{cast}'


_NAMES = ", ".join(f'"{name}"' for name in FIELDS)
_SET = ", ".join(f'"{name}" = excluded."{name}"' for name in FIELDS if name != "id")
# A `lost` row is replaced by one that is not.
_CONFLICT = f"ON CONFLICT (id) DO UPDATE SET {_SET} WHERE ledger.status = 'lost' AND excluded.status <> 'lost'"
_MARKS = ", ".join("?" * len(FIELDS))
_ARRAYS = ", ".join(f"${at}::{_array_type(column)}[]" for at, column in enumerate(_COLUMNS, 1))
_VALUES = ", ".join(_value(column) for column in _COLUMNS)
_SQLITE = f"INSERT INTO ledger ({_NAMES}) VALUES ({_MARKS}) {_CONFLICT}"  # noqa: S608  # names of columns only
_POSTGRES = f"INSERT INTO ledger ({_NAMES}) SELECT {_VALUES} FROM unnest({_ARRAYS}) AS given ({_NAMES}) {_CONFLICT}"  # noqa: S608  # as above
