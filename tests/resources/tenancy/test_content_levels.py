"""A key's content level is the strictest of its own, its team's and its organisation's."""

import itertools

import pytest
from tests.gateway.fakes import config, key_row

from quarterdeck.content import LEVELS, Level, strictest
from quarterdeck.resources.tenancy.principals import principal_of
from quarterdeck.store.terms import Terms


@pytest.mark.parametrize(("key", "team", "org"), list(itertools.product((None, *LEVELS), repeat=3)))
def test_the_strictest_of_the_databases_levels_applies(
    key: Level | None, team: Level | None, org: Level | None
) -> None:
    row = key_row(content=key, of_team=Terms(content=team), of_org=Terms(content=org))
    expected = strictest((key, team, org))
    assert principal_of(row, config(), 0).content == expected
    if org == "off":
        assert expected == "off"


def test_the_files_levels_replace_the_databases() -> None:
    row = key_row(name="ci", team="red", content="full", of_team=Terms(content="full"), of_org=Terms(content="full"))
    text = "models: [{name: m, endpoints: [{url: 'http://unused'}]}]\n"
    assert principal_of(row, config(text + "teams: {red: {content: hashed}}"), 0).content == "hashed"
    assert principal_of(row, config(text + "org: {content: off}"), 0).content == "off"
    assert principal_of(row, config(text + "keys: {ci: {content: off}}"), 0).content == "off"
    assert principal_of(row, config(text + "keys: {ci: {}}\nteams: {red: {}}\norg: {}"), 0).content is None
