"""Objects as the admin API shows them, and what quarterdeck.yaml manages."""

import pytest
from tests.gateway.fakes import config, key_row

from quarterdeck.errors import ConflictError
from quarterdeck.resources.tenancy.objects import (
    key_object,
    managed,
    merge_teams,
    page,
    refuse_key_fields,
    team_object,
    teams_in_config,
)
from quarterdeck.settings.limits import Limits
from quarterdeck.settings.tenancy import KeyConfig, TeamConfig
from quarterdeck.store.teams import TeamRow

MANAGED = config().model_copy(
    update={
        "keys": {"ci": KeyConfig(limits=Limits(max_tokens=7), tags=("file",))},
        "teams": {name: TeamConfig(priority=2) for name in ("filed", "other")},
    }
)


def test_a_key_shows_everything_but_its_digest_and_the_terms_in_force() -> None:
    shown = key_object(key_row(name="ci", digest="secret", limits=Limits(max_tokens=1), tags=("own",)), MANAGED)
    assert (shown["limits"], shown["tags"], shown["managed_by"]) == ({"max_tokens": 7}, ["file"], "config")
    assert "secret" not in repr(shown)
    elsewhere = key_object(key_row(name="ci", org="acme", limits=Limits(max_tokens=1)), MANAGED)
    assert (elsewhere["limits"], elsewhere["managed_by"]) == ({"max_tokens": 1}, "api")


def test_a_team_of_the_file_is_shown_before_it_has_a_key() -> None:
    found = merge_teams([TeamRow("default", "red", 5.0)], teams_in_config(MANAGED, "default", after="a"))
    shown = [team_object(row, MANAGED) for row in found]
    assert [(team["id"], team["managed_by"], team["created"]) for team in shown] == [
        ("filed", "config", None),
        ("other", "config", None),
        ("red", "api", 5),
    ]
    assert teams_in_config(MANAGED, "acme", after=None) == []
    assert [row.id for row in teams_in_config(MANAGED, "default", after="filed")] == ["other"]


def test_a_team_that_is_in_both_is_listed_once_with_the_databases_time() -> None:
    (row,) = merge_teams([TeamRow("default", "filed", 5.0)], [TeamRow("default", "filed", 0.0)])
    assert row.created == 5


def test_only_the_fields_that_the_file_manages_are_refused() -> None:
    refuse_key_fields(MANAGED, "default", "ci", {"models", "team", "name"})
    refuse_key_fields(MANAGED, "default", "laptop", {"limits"})
    refuse_key_fields(MANAGED, "acme", "ci", {"limits"})
    with pytest.raises(ConflictError) as caught:
        refuse_key_fields(MANAGED, "default", "ci", {"models", "tags", "limits"})
    assert (caught.value.param, caught.value.code) == ("limits", "managed_by_config")


def test_a_conflict_names_the_setting() -> None:
    assert managed("teams.red").message == "`teams.red` is managed by quarterdeck.yaml."


def test_a_page_holds_no_more_than_its_limit_and_says_whether_there_is_more() -> None:
    rows = [{"id": str(number)} for number in range(3)]
    assert page(rows, 2) == {
        "object": "list",
        "data": rows[:2],
        "first_id": "0",
        "last_id": "1",
        "has_more": True,
    }
    assert page([], 2)["first_id"] is None
    assert not page(rows, 3)["has_more"]
