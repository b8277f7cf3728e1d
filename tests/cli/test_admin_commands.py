"""Rules common to the commands keys, teams, orgs and usage: mistakes, tables and JSON."""

import json
from typing import Any

import pytest
from tests.cli.admin_api import BUDGET, KEY, TEAM, AdminAPI


@pytest.mark.parametrize(
    "words",
    [
        ("keys", "update", "key_1"),
        ("keys", "update", "key_1", "--no-tags", "--tag", "a"),
        ("keys", "update", "key_1", "--no-budget", "--budget", "1"),
        ("teams", "update", "red"),
        ("orgs", "update", "default"),
        ("keys", "create", "ci", "--budget", "much"),
        ("keys", "create", "ci", "--budget", "-1"),
        ("keys", "create", "ci", "--budget-period", "day"),
        ("usage", "--by", "shoe-size"),
        ("usage", "--start", "yesterday"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_said_in_a_line_and_not_sent(words: tuple[str, ...], admin: AdminAPI) -> None:
    for path in ("/admin/keys/key_1", "/admin/teams/red", "/admin/organizations/default"):
        admin.answers["GET", path] = {**KEY, **TEAM}
    done = admin.run(*words)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in done.output
    assert all(method == "GET" for method, _, _ in admin.requests)


@pytest.mark.parametrize(
    ("words", "path", "answer"),
    [
        (("keys", "list"), "/admin/keys", [KEY]),
        (("teams", "list"), "/admin/teams", [TEAM]),
        (("orgs", "list"), "/admin/organizations", [{"id": "default", "limits": None, "budget": None}]),
    ],
)
def test_a_list_is_a_table_or_json(words: tuple[str, ...], path: str, answer: Any, admin: AdminAPI) -> None:
    admin.answers["GET", path] = {"data": answer, "has_more": False}
    head, line = admin.run(*words).stdout.splitlines()
    assert head.split()[-1].isupper()
    assert answer[0]["id"] in line
    assert json.loads(admin.run(*words, "--json").stdout) == answer


@pytest.mark.parametrize(
    ("method", "words", "path", "answer"),
    [
        ("GET", ("keys", "show", "key_1"), "/admin/keys/key_1", KEY),
        ("DELETE", ("keys", "revoke", "key_1"), "/admin/keys/key_1", {"id": "key_1", "deleted": True}),
        ("POST", ("keys", "rotate", "key_1"), "/admin/keys/key_1/rotate", {**KEY, "key": "sk-qd-new"}),
        ("GET", ("teams", "show", "red"), "/admin/teams/red", TEAM),
        ("POST", ("teams", "create", "red"), "/admin/teams", TEAM),
        ("DELETE", ("teams", "delete", "red"), "/admin/teams/red", {"id": "red", "deleted": True}),
        ("POST", ("orgs", "create", "acme"), "/admin/organizations", {"id": "acme", "limits": None, "budget": BUDGET}),
        ("GET", ("orgs", "show", "acme"), "/admin/organizations/acme", {"id": "acme", "budget": BUDGET}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_answer_can_be_had_as_json(
    method: str, words: tuple[str, ...], path: str, answer: Any, admin: AdminAPI
) -> None:
    admin.answers[method, path] = answer
    assert admin.run(*words).exit_code == 0
    assert json.loads(admin.run(*words, "--json").stdout) == answer
