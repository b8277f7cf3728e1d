"""`quarterdeck keys`: requests to the admin API."""

from tests.cli.admin_api import BUDGET, KEY, AdminAPI

from quarterdeck.cli import keys


def test_a_new_key_asks_for_what_was_said_and_no_more() -> None:
    assert keys.request_of("ci", {"team": None, "models": (), "admin": False}) == {"name": "ci"}
    options = {"team": "a", "models": ("m",), "expires_in_days": 3, "admin": True, "max_tokens": 5}
    assert keys.request_of("ci", options) == {
        "name": "ci",
        "team": "a",
        "models": ["m"],
        "expires_in_days": 3,
        "admin": True,
        "limits": {"max_tokens": 5},
    }


def test_limits_and_budget_are_sent_as_they_were_written(admin: AdminAPI) -> None:
    admin.answers["POST", "/admin/keys"] = {**KEY, "key": "sk-qd-secret"}
    done = admin.run(
        *("keys", "create", "ci", "--team", "red", "--budget", "$0.10", "--budget-period", "day"),
        *("--on-exhausted", "warn", "--requests-per-minute", "5", "--priority", "0", "--tag", "a"),
    )
    assert admin.requests == [
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


def test_an_update_changes_what_was_said_and_keeps_the_rest(admin: AdminAPI) -> None:
    admin.answers["GET", "/admin/keys/key_1"] = KEY
    admin.answers["POST", "/admin/keys/key_1"] = KEY
    admin.run("keys", "update", "key_1", "--requests-per-minute", "9", "--budget", "20", "--never-expires")
    assert admin.requests[-1][2] == {
        "limits": {"max_tokens": 5, "requests_per_minute": 9},
        "budget": {**BUDGET, "amount": "20"},
        "expires_in_days": None,
    }
    admin.run("keys", "update", "key_1", "--no-limits", "--no-budget", "--no-tags", "--all-models")
    assert admin.requests[-1][2] == {"limits": None, "budget": None, "tags": [], "models": None}


def test_a_key_is_shown_by_its_name_where_one_key_has_it(admin: AdminAPI) -> None:
    old, other = {**KEY, "id": "key_0", "revoked": 1_800_000_000}, {**KEY, "id": "key_2", "name": "twice"}
    admin.answers["GET", "/admin/keys"] = {"data": [old, KEY, other, {**other, "id": "key_3"}], "has_more": False}
    admin.answers["GET", "/admin/keys/key_1"] = KEY
    assert admin.run("keys", "show", "ci").stdout.startswith("id ")
    assert admin.requests[-1][1] == "/admin/keys/key_1"
    assert admin.run("keys", "show", "none").stderr == "Error: no key is named 'none'\n"
    assert admin.run("keys", "show", "twice").stderr == "Error: several keys are named 'twice': key_2, key_3\n"


def test_a_key_is_rotated_changed_and_revoked_by_its_name(admin: AdminAPI) -> None:
    admin.answers["GET", "/admin/keys"] = {"data": [KEY], "has_more": False}
    admin.answers["GET", "/admin/keys/key_1"] = KEY
    admin.answers["POST", "/admin/keys/key_1"] = KEY
    admin.answers["POST", "/admin/keys/key_1/rotate"] = {**KEY, "key": "sk-new"}
    admin.answers["DELETE", "/admin/keys/key_1"] = KEY
    for words in (["update", "ci", "--priority", "1"], ["rotate", "ci"], ["revoke", "ci"]):
        assert admin.run("keys", *words).exit_code == 0
    assert [path for method, path, _ in admin.requests if method != "GET"] == [
        "/admin/keys/key_1",
        "/admin/keys/key_1/rotate",
        "/admin/keys/key_1",
    ]


def test_an_argument_that_is_no_text_is_refused_in_one_line(admin: AdminAPI) -> None:
    """In a locale that is not UTF-8, Python decodes foreign bytes of arguments to surrogates."""
    done = admin.run("keys", "create", "\udcd0\udcba")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "LC_ALL=C.UTF-8" in done.stderr
