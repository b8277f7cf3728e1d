"""`quarterdeck usage`."""

from datetime import datetime

from tests.cli.admin_api import AdminAPI

from quarterdeck.cli import usage


def test_usage_is_asked_for_by_key_in_utc_unless_something_else_was_said() -> None:
    assert usage.params_of({}) == {"group_by": ["key"]}
    options = {"groups": ("team", "model"), "start": datetime(1970, 1, 2), "bucket": "day", "key": None}
    assert usage.params_of(options) == {"group_by": ["team", "model"], "start": 86_400, "bucket": "day"}


def test_usage_is_a_table(admin: AdminAPI) -> None:
    row = {"object": "usage", "key": "key_1", "start": 0, "end": 3600, **dict.fromkeys(usage.COUNTS, 7), "cost": "0.1"}
    admin.answers["GET", "/admin/usage"] = {"data": [row]}
    head, line = admin.run("usage", "--bucket", "hour").stdout.splitlines()
    assert head.split()[:2] == ["KEY", "START"]
    assert line.split()[:3] == ["key_1", "1970-01-01", "00:00"]
    assert "$0.1 " in line
    admin.answers["GET", "/admin/usage"] = {"data": []}
    assert admin.run("usage").stdout == ""


def test_a_callers_user_can_not_write_to_the_terminal(admin: AdminAPI) -> None:
    row = {"object": "usage", "user": "\x1b[2J\nforged", "end": 3600, **dict.fromkeys(usage.COUNTS, 7)}
    admin.answers["GET", "/admin/usage"] = {"data": [row]}
    text = admin.run("usage", "--by", "user").stdout
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2
    assert "\\x1b[2J\\x0aforged" in text
