"""What keys, teams, orgs and usage ask the admin API for, and how they show what it answers."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from quarterdeck.cli import client, keys, orgs, teams, terms, usage
from quarterdeck.cli.__main__ import cli

BUDGET = {"amount": "10", "period": "month", "on_exhausted": "deny"}
KEY = {
    "id": "key_1",
    "object": "api_key",
    "name": "ci",
    "team": "red",
    "hint": "abcd",
    "limits": {"max_tokens": 5},
    "budget": BUDGET,
    "priority": None,
    "tags": ["a", "b"],
    "models": None,
    "admin": False,
    "managed_by": "api",
    "created": 1_800_000_000,
    "expires": None,
    "revoked": None,
}
TEAM = {"id": "red", "object": "team", "limits": None, "budget": None, "priority": 3, "managed_by": "config"}
Answer = Callable[[httpx.Request], Any]


class Asked:
    """An admin API that remembers what it was asked for, and commands that are run against it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.answers: dict[tuple[str, str], Any] = {}
        self.status = 200

    def handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else dict(request.url.params.multi_items())
        self.requests.append((request.method, request.url.path, body))
        return httpx.Response(self.status, json=self.answers[request.method, request.url.path])

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(cli, words)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    made = Asked()

    @contextmanager
    def as_admin() -> Iterator[httpx.Client]:
        with httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(made.handle)) as inner:
            yield inner

    for module in (keys, teams, orgs, usage):
        monkeypatch.setattr(module, "as_admin", as_admin)
    return made


def test_limits_and_budget_are_sent_as_they_were_written(asked: Asked) -> None:
    asked.answers["POST", "/admin/keys"] = {**KEY, "key": "sk-qd-secret"}
    done = asked.run(
        *("keys", "create", "ci", "--team", "red", "--budget", "$0.10", "--budget-period", "day"),
        *("--on-exhausted", "warn", "--requests-per-minute", "5", "--priority", "0", "--tag", "a"),
    )
    assert asked.requests == [
        (
            "POST",
            "/admin/keys",
            {
                "name": "ci",
                "team": "red",
                "priority": 0,
                "tags": ["a"],
                "limits": {"requests_per_minute": 5},
                "budget": {"amount": "0.10", "period": "day", "on_exhausted": "warn"},
            },
        )
    ]
    assert done.stdout == "sk-qd-secret\n"


def test_an_update_changes_what_was_said_and_keeps_the_rest(asked: Asked) -> None:
    asked.answers["GET", "/admin/keys/key_1"] = KEY
    asked.answers["POST", "/admin/keys/key_1"] = KEY
    asked.run("keys", "update", "key_1", "--requests-per-minute", "9", "--budget", "20", "--never-expires")
    assert asked.requests[-1][2] == {
        "limits": {"max_tokens": 5, "requests_per_minute": 9},
        "budget": {**BUDGET, "amount": "20"},
        "expires_in_days": None,
    }
    asked.run("keys", "update", "key_1", "--no-limits", "--no-budget", "--no-tags", "--all-models")
    assert asked.requests[-1][2] == {"limits": None, "budget": None, "tags": [], "models": None}


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
def test_what_makes_no_sense_is_said_in_a_line_and_not_sent(words: tuple[str, ...], asked: Asked) -> None:
    for path in ("/admin/keys/key_1", "/admin/teams/red", "/admin/organizations/default"):
        asked.answers["GET", path] = {**KEY, **TEAM}
    done = asked.run(*words)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in done.output
    assert all(method == "GET" for method, _, _ in asked.requests)


def test_a_refusal_is_the_platforms_own_words(asked: Asked) -> None:
    asked.answers["GET", "/admin/teams/red"] = TEAM
    asked.answers["DELETE", "/admin/teams/red"] = {"error": {"message": "quarterdeck.yaml says it"}}
    asked.status = 409
    done = asked.run("teams", "delete", "red")
    assert (done.exit_code, done.stderr) == (1, "Error: quarterdeck.yaml says it (status 409)\n")


@pytest.mark.parametrize(
    ("words", "path", "answer"),
    [
        (("keys", "list"), "/admin/keys", [KEY]),
        (("teams", "list"), "/admin/teams", [TEAM]),
        (("orgs", "list"), "/admin/organizations", [{"id": "default", "limits": None, "budget": None}]),
    ],
)
def test_a_list_is_a_table_or_json(words: tuple[str, ...], path: str, answer: Any, asked: Asked) -> None:
    asked.answers["GET", path] = {"data": answer, "has_more": False}
    head, line = asked.run(*words).stdout.splitlines()
    assert head.split()[-1].isupper()
    assert answer[0]["id"] in line
    assert json.loads(asked.run(*words, "--json").stdout) == answer


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
    method: str, words: tuple[str, ...], path: str, answer: Any, asked: Asked
) -> None:
    asked.answers[method, path] = answer
    assert asked.run(*words).exit_code == 0
    assert json.loads(asked.run(*words, "--json").stdout) == answer


def test_an_object_is_shown_a_line_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    terms.show(KEY)
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["limits"] == "5 tokens each"
    assert shown["budget"] == "$10 a month"
    assert (shown["tags"], shown["admin"]) == ("a, b", "no")
    assert "models" not in shown
    assert "key" not in shown


def test_a_budgets_state_is_shown_in_a_line() -> None:
    status = {"period_start": 1_798_761_600, "spent": "3.2", "held": "0.1", "left": "6.7", "is_counting": False}
    assert terms.status_text(status) == "$3.2 spent, $0.1 held, $6.7 left, since 2027-01-01 UTC"
    told = terms.status_text({**status, "period_start": None, "is_counting": True})
    assert told == "$3.2 spent, $0.1 held, $6.7 left, what was spent before is still to be counted"


def test_a_key_is_shown_by_its_name_where_one_key_has_it(asked: Asked) -> None:
    old, other = {**KEY, "id": "key_0", "revoked": 1_800_000_000}, {**KEY, "id": "key_2", "name": "twice"}
    asked.answers["GET", "/admin/keys"] = {"data": [old, KEY, other, {**other, "id": "key_3"}], "has_more": False}
    asked.answers["GET", "/admin/keys/key_1"] = KEY
    assert asked.run("keys", "show", "ci").stdout.startswith("id ")
    assert asked.requests[-1][1] == "/admin/keys/key_1"
    assert asked.run("keys", "show", "none").stderr == "Error: no key is called 'none'\n"
    assert asked.run("keys", "show", "twice").stderr == "Error: several keys are called 'twice': key_2, key_3\n"


def test_a_list_of_several_pages_is_read_to_its_end() -> None:
    pages = iter([{"data": [{"id": "a"}], "has_more": True}, {"data": [{"id": "b"}], "has_more": False}])
    seen: list[dict[str, str]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(dict(request.url.params))
        return httpx.Response(200, json=next(pages))

    with httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(handle)) as inner:
        assert [found["id"] for found in client.everything(inner, "/admin/keys", team="red")] == ["a", "b"]
    assert [page.get("after") for page in seen] == [None, "a"]
    assert {page["team"] for page in seen} == {"red"}


def test_usage_is_asked_for_by_key_in_utc_unless_something_else_was_said() -> None:
    assert usage.params_of({}) == {"group_by": ["key"]}
    options = {"groups": ("team", "model"), "start": datetime(1970, 1, 2), "bucket": "day", "key": None}
    assert usage.params_of(options) == {"group_by": ["team", "model"], "start": 86_400, "bucket": "day"}


def test_usage_is_a_table(asked: Asked) -> None:
    row = {"object": "usage", "key": "key_1", "start": 0, "end": 3600, **dict.fromkeys(usage.COUNTS, 7), "cost": "0.1"}
    asked.answers["GET", "/admin/usage"] = {"data": [row]}
    head, line = asked.run("usage", "--bucket", "hour").stdout.splitlines()
    assert head.split()[:2] == ["KEY", "START"]
    assert line.split()[:3] == ["key_1", "1970-01-01", "00:00"]
    assert "$0.1 " in line
    asked.answers["GET", "/admin/usage"] = {"data": []}
    assert asked.run("usage").stdout == ""


def test_a_rest_of_a_budget_without_its_amount_is_a_mistake() -> None:
    with pytest.raises(click.UsageError):
        terms.asked({"budget_period": "day"})
    assert terms.asked({"budget_period": "day"}, {"budget": BUDGET})["budget"]["period"] == "day"
