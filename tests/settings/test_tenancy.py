"""Limits and budgets in quarterdeck.yaml."""

from decimal import Decimal

import pytest

from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.settings.loading import ConfigError, parse

MODELS = "models:\n  - name: m\n    endpoints: [{url: http://h}]\n"


def test_org_teams_and_keys_are_read() -> None:
    config = parse(
        MODELS
        + 'org: {budget: {amount: "1000.000001", period: total}}\n'
        + "teams:\n  research:\n    limits: {tokens_per_minute: 5}\n    priority: 9\n"
        + 'keys:\n  ci: {budget: {amount: "0.10", on_exhausted: warn}, tags: [batch], priority: 0}\n'
    )
    assert config.org is not None
    assert config.org.budget == Budget(amount=Decimal("1000.000001"), period="total")
    team, key = config.teams["research"], config.keys["ci"]
    assert (team.limits, team.budget, team.priority) == (Limits(tokens_per_minute=5), None, 9)
    assert (key.limits, key.priority, key.tags) == (None, 0, ("batch",))
    assert key.budget == Budget(amount=Decimal("0.10"), on_exhausted="warn")


def test_without_them_nothing_is_owned_by_the_file() -> None:
    config = parse(MODELS)
    assert (config.org, config.teams, config.keys) == (None, {}, {})


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("teams: {a b: {}}", "teams.a b"),
        ("teams: {x: {priority: 10}}", "teams.x.priority"),
        ("teams: {x: {tags: [a]}}", "teams.x.tags"),
        ("keys: {x: {tags: ['']}}", "keys.x.tags[0]"),
        ("keys: {x: {budget: {amount: 0}}}", "keys.x.budget.amount"),
        ("keys: {x: {budget: {amount: '0.0000001'}}}", "keys.x.budget.amount"),
        ("org: {budget: {amount: 1, period: year}}", "org.budget.period"),
        ("org: {priority: 1}", "org.priority"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, where: str) -> None:
    with pytest.raises(ConfigError, match=r"^quarterdeck\.yaml:4: ") as caught:
        parse(f"{MODELS}{text}\n")
    assert f" {where}" in str(caught.value)
