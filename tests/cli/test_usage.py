"""`quarterdeck usage`."""

import csv
import io
import json
from datetime import datetime
from typing import Any

import pytest
from tests.cli.admin_api import AdminAPI

from quarterdeck.cli import usage
from quarterdeck.cli.usage_table import COUNTS, UNITS


def test_usage_is_asked_for_by_key_in_utc_unless_something_else_was_said() -> None:
    assert usage.params_of({}) == {"group_by": ["key"]}
    options = {"groups": ("team", "model"), "start": datetime(1970, 1, 2), "bucket": "day", "key": None}
    assert usage.params_of(options) == {"group_by": ["team", "model"], "start": 86_400, "bucket": "day"}


KEYS = {"data": [{"id": "key_1", "name": "ci", "revoked": None}], "has_more": False}
DAY = 86_400


def a_row(**changes: Any) -> dict[str, Any]:
    return {
        "object": "usage",
        "key": "key_1",
        **dict.fromkeys(COUNTS, 7),
        **dict.fromkeys(UNITS, 0),
        "cost": "0.1",
        "saved": "0",
    } | changes


@pytest.fixture
def busy(admin: AdminAPI) -> AdminAPI:
    """Two days of a key named ci, and two budgets."""
    data = [a_row(start=day * DAY, end=(day + 1) * DAY) for day in range(2)]
    admin.answers["GET", "/admin/usage"] = {"data": data, "start": 0, "end": 2 * DAY}
    admin.answers["GET", "/admin/keys"] = KEYS
    budget = {"object": "budget", "scope": "key", "id": "key_1", "name": "ci", "team": "red", "period": "month"}
    budget |= {"amount": "10", "on_exhausted": "deny", "spent": "4", "held": "0", "left": "6", "is_counting": False}
    budget |= {"period_start": 0, "period_end": 30 * DAY}
    calm = {**budget, "scope": "team", "name": "red", "spent": "0.5"}
    total = {**budget, "scope": "organization", "name": "default", "period_start": None, "period_end": None}
    admin.answers["GET", "/admin/budgets"] = {"data": [calm, total, budget], "as_of": 10 * DAY}
    return admin


def test_usage_is_a_table_with_the_names_of_keys_and_a_spark_line(busy: AdminAPI) -> None:
    head, line, *_ = busy.run("usage", "--bucket", "day", "--no-forecast").stdout.splitlines()
    assert head.split()[:2] == ["KEY", "REQUESTS"]
    assert line.split() == ["ci", "14", "14", "14", "14", "14", "$0.2", "██"]
    busy.answers["GET", "/admin/usage"] = {"data": []}
    assert busy.run("usage", "--no-forecast").stdout == ""


def test_csv_has_every_bucket_ids_and_names(busy: AdminAPI) -> None:
    rows = list(csv.DictReader(io.StringIO(busy.run("usage", "--bucket", "day", "--csv").stdout)))
    assert [(row["key"], row["key_name"], row["start"], row["cost"]) for row in rows] == [
        ("key_1", "ci", "1970-01-01T00:00:00Z", "0.1"),
        ("key_1", "ci", "1970-01-02T00:00:00Z", "0.1"),
    ]
    assert busy.run("usage", "--csv", "--json").exit_code == 2


def test_a_callers_text_is_no_formula_and_no_escape_in_csv(busy: AdminAPI) -> None:
    users = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "a\nb", "u\x1b[2J", "ann-1"]
    data = [{**a_row(), "user": user} for user in users]
    busy.answers["GET", "/admin/usage"] = {"data": data, "start": 0, "end": DAY}
    text = busy.run("usage", "--by", "user", "--csv").stdout
    found = [row["user"] for row in csv.DictReader(io.StringIO(text))]
    expected = ['\'=HYPERLINK("http://x")', "'+1", "'-1", "'@SUM(A1)", "'\\x09=1", "a\\x0ab", "u\\x1b[2J", "ann-1"]
    assert found == expected
    assert len(text.splitlines()) == 1 + len(users)


def test_json_is_the_apis_answer(busy: AdminAPI) -> None:
    assert json.loads(busy.run("usage", "--json").stdout) == busy.answers["GET", "/admin/usage"]
    assert [path for _, path, _ in busy.requests] == ["/admin/usage"]
    first = json.loads(busy.run("usage", "--json", "--forecast").stdout)["budgets"][0]
    assert (first["name"], first["forecast"], first["runs_out"]) == ("ci", "12.000000000000", 25 * DAY)


def test_budgets_that_are_used_up_first_are_forecast_and_how_is_said(busy: AdminAPI) -> None:
    text = busy.run("usage").stdout
    budgets = text.split("\n\n")[1].splitlines()
    assert "$12.00 (120%)" in budgets[1] and budgets[1].endswith("1970-01-26T00:00:00Z")
    assert "key ci" in budgets[1] and "team red" in budgets[3] and "$1.50 (15%)" in budgets[3]
    assert "spent so far x length of the period / time so far" in budgets[-1]
    assert "BUDGET" not in busy.run("usage", "--end", "2026-01-01").stdout


def test_two_keys_of_one_name_can_be_told_apart(busy: AdminAPI) -> None:
    data = [a_row(key="key_1"), a_row(key="key_2"), a_row(key="mirror")]
    busy.answers["GET", "/admin/usage"] = {"data": data}
    busy.answers["GET", "/admin/keys"] = {"data": [{"id": id, "name": "ci"} for id in ("key_1", "key_2")]}
    names = [line.split("  ")[0] for line in busy.run("usage", "--no-forecast").stdout.splitlines()]
    assert sorted(names[1:]) == ["ci (…ey_1)", "ci (…ey_2)", "mirror"]


def test_a_key_is_named_or_its_id_given(busy: AdminAPI) -> None:
    busy.run("usage", "--key", "ci", "--json")
    assert busy.requests[-1][2]["key"] == "key_1"


def test_a_callers_user_can_not_write_to_the_terminal(admin: AdminAPI) -> None:
    row = {"object": "usage", "user": "\x1b[2J\nforged", "end": 3600, **dict.fromkeys(COUNTS, 7)}
    admin.answers["GET", "/admin/usage"] = {"data": [row]}
    text = admin.run("usage", "--by", "user", "--no-forecast").stdout
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2
    assert "\\x1b[2J\\x0aforged" in text
