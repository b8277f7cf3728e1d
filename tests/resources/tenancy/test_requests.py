"""Bodies that create and change keys, teams and organisations."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from quarterdeck.resources.tenancy.requests import KeyRequest, KeyUpdate, OrgRequest, TeamRequest, TeamUpdate, given
from quarterdeck.settings.limits import Limits


def test_an_update_holds_the_fields_that_were_given_null_or_not() -> None:
    body = TeamUpdate.model_validate({"limits": {"max_tokens": 5}, "budget": None})
    assert given(body) == {"limits": Limits(max_tokens=5), "budget": None}


def test_a_key_needs_a_name_only() -> None:
    assert (body := KeyRequest(name="ci")).model_fields_set == {"name"}
    assert (body.org, body.team, body.limits, body.tags, body.admin) == (None, "default", None, (), False)


@pytest.mark.parametrize(
    ("model", "body", "field"),
    [
        (KeyRequest, {}, "name"),
        (KeyRequest, {"name": "a\nb"}, "name"),
        (KeyRequest, {"name": "x", "expires_in_days": 0}, "expires_in_days"),
        (KeyRequest, {"name": "x", "models": [""]}, "models"),
        (KeyUpdate, {"team": None}, "team"),
        (KeyUpdate, {"admin": True}, "admin"),
        (TeamRequest, {"id": "../x"}, "id"),
        (TeamUpdate, {"id": "x"}, "id"),
        (OrgRequest, {"id": "x", "priority": 1}, "priority"),
    ],
)
def test_a_bad_field_is_named(model: type[BaseModel], body: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    assert caught.value.errors()[0]["loc"][0] == field
