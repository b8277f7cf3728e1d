"""A principal combines the terms of key, team and organisation; quarterdeck.yaml's replace the database's."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.fakes import config, key_row

from quarterdeck.accounting.principal import Principal, Scope
from quarterdeck.resources.tenancy.principals import is_counted, principal_of
from quarterdeck.settings.config import Config
from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.settings.tenancy import KeyConfig, OrgConfig, TeamConfig
from quarterdeck.store.terms import Terms

counts = st.none() | st.integers(1, 10**6)
limits = st.builds(
    Limits, requests_per_minute=counts, tokens_per_minute=counts, concurrent_requests=counts, max_tokens=counts
)
budgets = st.none() | st.builds(
    Budget, amount=st.decimals("0.000001", 10**6, places=6), period=st.sampled_from(["day", "week", "month", "total"])
)
priorities = st.none() | st.integers(0, 9)
terms = st.builds(Terms, st.none() | limits, budgets, priorities)
rows = st.builds(
    lambda **fields: key_row(**fields),
    id=st.just("key_1"),
    org=st.sampled_from(["default", "acme"]),
    team=st.sampled_from(["red", "blue"]),
    name=st.sampled_from(["ci", "laptop"]),
    limits=st.none() | limits,
    budget=budgets,
    priority=priorities,
    tags=st.lists(st.sampled_from("abc"), unique=True).map(tuple),
    of_team=terms,
    of_org=terms,
)
configs = st.builds(
    lambda **fields: config().model_copy(update=fields),
    limits=limits,
    keys=st.dictionaries(st.just("ci"), st.builds(KeyConfig, limits=st.none() | limits, budget=budgets)),
    teams=st.dictionaries(st.just("red"), st.builds(TeamConfig, limits=limits, budget=budgets)),
    org=st.none() | st.builds(OrgConfig, limits=limits, budget=budgets),
)


@given(row=rows, config=configs)
def test_a_request_is_counted_in_each_scope_that_has_something_to_count(row: Any, config: Config) -> None:
    found = principal_of(row, config, 7)
    assert (found.key, found.org, found.team, found.revision) == (row.id, row.org, row.team, 7)
    order = ["key:key_1", f"team:{row.team}", "org"]
    ids = [scope.id for scope in found.scopes]
    assert ids == [id for id in order if id in ids]
    assert all(is_counted(scope) for scope in found.scopes)


@given(row=rows, config=configs)
def test_no_request_may_be_larger_than_any_of_the_three_allows(row: Any, config: Config) -> None:
    found = principal_of(row, config, 0)
    named_key = config.keys.get(row.name) if row.org == "default" else None
    named_team = config.teams.get(row.team) if row.org == "default" else None
    named_org = config.org if row.org == "default" else None
    own = (named_key.limits if named_key else row.limits) or config.limits
    team = named_team.limits if named_team else row.of_team.limits or Limits()
    org = named_org.limits if named_org else row.of_org.limits or Limits()
    bounds = [limit.max_tokens for limit in (own, team, org) if limit.max_tokens is not None]
    assert found.limits.max_tokens == (min(bounds) if bounds else None)
    assert found.limits.model_copy(update={"max_tokens": own.max_tokens}) == own


@given(row=rows, config=configs)
def test_the_file_says_nothing_of_another_organisation(row: Any, config: Config) -> None:
    if row.org == "default":
        return
    bare = config.model_copy(update={"keys": {}, "teams": {}, "org": None})
    assert principal_of(row, config, 0) == principal_of(row, bare, 0)


@pytest.mark.parametrize(
    ("key", "team", "priority"), [(None, None, 0), (None, 4, 4), (0, 4, 0), (9, 4, 9), (2, None, 2)]
)
def test_a_keys_priority_goes_before_its_teams(key: int | None, team: int | None, priority: int) -> None:
    assert principal_of(key_row(priority=key, of_team=Terms(priority=team)), config(), 0).priority == priority


def test_without_limits_and_budgets_nothing_is_counted() -> None:
    found = principal_of(key_row(limits=Limits(max_tokens=5)), config(), 0)
    assert (found.scopes, found.limits.max_tokens) == ((), 5)


def test_all_three_are_counted_where_all_have_something() -> None:
    money, rate = Budget(amount=Decimal(1)), Limits(requests_per_minute=1)
    row = key_row(
        id="key_1", team="red", tags=("a",), limits=rate, of_team=Terms(rate, money), of_org=Terms(None, money)
    )
    assert principal_of(row, config(), 0).scopes == (
        Scope("key:key_1", rate, None),
        Scope("team:red", rate, money),
        Scope("org", Limits(), money),
    )


def test_the_files_words_of_a_key_go_before_its_own() -> None:
    money = Budget(amount=Decimal(1))
    named = config().model_copy(update={"keys": {"ci": KeyConfig(budget=money, priority=3, tags=("f",))}})
    row = key_row(id="key_1", name="ci", budget=None, limits=Limits(max_tokens=5), priority=9, tags=("own",))
    found = principal_of(row, named, 0)
    assert (found.limits, found.priority, found.tags) == (Limits(), 3, ("f",))
    assert found.scopes == (Scope("key:key_1", Limits(), money),)
    assert isinstance(found, Principal)
