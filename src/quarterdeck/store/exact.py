"""Money in a column, exact on every database."""

from decimal import Decimal
from typing import Any

from sqlalchemy import Dialect, Numeric, Text, TypeDecorator
from sqlalchemy.types import TypeEngine


class ExactDecimal(TypeDecorator[Decimal]):
    """NUMERIC on PostgreSQL, and TEXT on SQLite, whose NUMERIC is a float for anything with a fraction.

    Do not compare or sum it in SQL on SQLite, where it is text: `store/ledger` sums in Python there.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        # Without precision and scale PostgreSQL keeps every digit.
        return dialect.type_descriptor(Numeric(asdecimal=True) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        text = exact_text(value)
        return value if dialect.name == "postgresql" else text

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


def exact_text(value: Decimal) -> str:
    """Money as SQLite stores it. Raises ValueError where the value is not finite."""
    if not value.is_finite():
        raise ValueError(f"an amount of money must be finite, not {value}")
    return format(value, "f")
