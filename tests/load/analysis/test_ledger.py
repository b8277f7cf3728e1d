"""The ledger compared with the answers: rows, tokens and dollars."""

import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

from quarterdeck.load.analysis import ledger
from quarterdeck.load.analysis.ledger import LedgerRow
from quarterdeck.load.analysis.results import Request

PRICES = (Decimal("1"), Decimal("0.5"), Decimal("10"))


def request(name: str, output: int = 10, outcome: str = "ok", cache: str = "") -> Request:
    return Request(
        "main", "chat", 0.0, 0.0, None, 1.0, 200, outcome, 100, 40, output, None, None, cache, name, None, None
    )


def entry(output: int = 10, cost: str = "0.00018") -> LedgerRow:
    return LedgerRow(100, 40, output, PRICES, Decimal(cost))  # 60 · $1 + 40 · $0.5 + 10 · $10, in millionths


def test_books_that_agree_have_no_drift() -> None:
    books = ledger.compare([request("a"), request("b")], {"a": entry(), "b": entry()})
    assert (books.requests, books.missing, books.tokens, books.drift) == (2, 0, 220, 0.0)
    assert books.cost == books.ledger_cost == Decimal("0.00036")


def test_a_missing_row_and_wrong_tokens_and_a_wrong_cost_are_drift() -> None:
    assert ledger.compare([request("a"), request("b")], {"a": entry()}).drift == 0.5
    assert ledger.compare([request("a")], {"a": entry(output=21)}).drift == pytest.approx(0.1)
    assert ledger.compare([request("a")], {"a": entry(cost="0.00027")}).drift == pytest.approx(0.5)


def test_errors_are_not_looked_for_and_hits_cost_what_they_cost() -> None:
    asked = [request("a", outcome="cut"), request("b", cache="hit")]
    assert ledger.compare(asked, {"b": entry(cost="0")}).drift == 0.0


def test_rows_that_are_late_are_waited_for(tmp_path: Path) -> None:
    assert ledger.read(tmp_path, [request("a")]) is None
    columns = "id, input_tokens, cached_tokens, output_tokens, price_input, price_cached, price_output, cost"
    with sqlite3.connect(tmp_path / "quarterdeck.db") as database:
        database.execute(f"CREATE TABLE ledger ({columns})")

    def write(_: float) -> None:
        database.execute("INSERT INTO ledger VALUES ('a', 100, 40, 10, '1', '0.5', '10', '0.00018')")
        database.commit()

    books = ledger.read(tmp_path, [request("a")], sleep=write)
    database.close()
    assert books is not None
    assert books.drift == 0.0
    assert books.line() == (
        "Ledger: 1 of 1 answers, 110 of 110 tokens, $0.000180 of $0.000180; drift 0.000%."
        " (Answers of the warm-up included.)"
    )
