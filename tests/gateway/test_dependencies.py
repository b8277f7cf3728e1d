"""Dependencies of all admin routes."""

import pytest
from tests.gateway.fakes import ADMIN, Client, parts

from quarterdeck.gateway.app import create_app


@pytest.mark.parametrize(
    "path",
    ["/admin/keys", "/admin/teams", "/admin/organizations", "/admin/usage", "/admin/teams/red", "/admin/cache"],
)
async def test_a_query_that_is_not_known_is_refused(path: str) -> None:
    answer = await Client(create_app(parts()), key=ADMIN).get(f"{path}?teem=red")
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, "teem", "unknown_parameter")
