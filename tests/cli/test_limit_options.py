"""Request fields made from limit and budget options."""

import click
import pytest
from tests.cli.admin_api import BUDGET

from quarterdeck.cli import limit_options


def test_a_rest_of_a_budget_without_its_amount_is_a_mistake() -> None:
    with pytest.raises(click.UsageError):
        limit_options.limit_fields({"budget_period": "day"})
    assert limit_options.limit_fields({"budget_period": "day"}, {"budget": BUDGET})["budget"]["period"] == "day"


def test_a_content_level_is_set_and_unset() -> None:
    assert limit_options.limit_fields({"content": "full"}) == {"content": "full"}
    assert limit_options.limit_fields({"content": "unset"}) == {"content": None}
    assert limit_options.limit_fields({"content": None}) == {}
