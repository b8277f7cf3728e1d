"""HTTP access to the platform: pages, errors and connection failures."""

import click
import httpx
import pytest
from click.testing import CliRunner
from tests.cli.admin_api import TEAM, AdminAPI

from quarterdeck.cli import client, state
from quarterdeck.cli.__main__ import cli


def test_a_refusal_is_the_platforms_own_words(admin: AdminAPI) -> None:
    admin.answers["GET", "/admin/teams/red"] = TEAM
    admin.answers["DELETE", "/admin/teams/red"] = {"error": {"message": "quarterdeck.yaml says it"}}
    admin.status = 409
    done = admin.run("teams", "delete", "red")
    assert (done.exit_code, done.stderr) == (1, "Error: quarterdeck.yaml says it (status 409)\n")


def test_a_list_of_several_pages_is_read_to_its_end() -> None:
    pages = iter([{"data": [{"id": "a"}], "has_more": True}, {"data": [{"id": "b"}], "has_more": False}])
    seen: list[dict[str, str]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(dict(request.url.params))
        return httpx.Response(200, json=next(pages))

    with httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(handle)) as inner:
        assert [found["id"] for found in client.list_all(inner, "/admin/keys", team="red")] == ["a", "b"]
    assert [page.get("after") for page in seen] == [None, "a"]
    assert {page["team"] for page in seen} == {"red"}


def test_a_platform_that_does_not_run_is_one_line() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    context = click.Context(click.Command("x"), obj=httpx.MockTransport(refuse))
    with (
        context.scope(),
        pytest.raises(click.ClickException, match="cannot connect to http://gateway: is `quarterdeck up` running"),
        client.gateway_client("http://gateway", "sk-qd") as inner,
    ):
        inner.get("/readyz")


def test_a_platform_that_starts_or_stops_is_told_from_one_that_does_not_run(admin: AdminAPI) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    environ = {"QUARTERDECK_STATE": str(admin.state)}
    with state.locked(admin.state):
        done = CliRunner().invoke(cli, ["keys", "list"], obj=httpx.MockTransport(refuse), env=environ)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "the platform is starting or stopping (`quarterdeck status`)" in done.stderr


WORDS = (
    ("files", "show"),
    ("files", "download"),
    ("files", "delete", "--yes"),
    ("batches", "show"),
    ("batches", "cancel"),
    ("requests", "show"),
    ("webhooks", "show"),
    ("webhooks", "test"),
    ("feedback", "delete"),
    ("teams", "show"),
    ("teams", "delete"),
    ("orgs", "show"),
    ("models", "show"),
    ("models", "remove"),
    ("models", "adapters", "remove"),
)


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
@pytest.mark.parametrize("name", ["", "..", "../keys", "a/../b"])
def test_what_can_not_be_a_name_is_not_sent(words: tuple[str, ...], name: str, admin: AdminAPI) -> None:
    admin.answers["GET", "/healthz"] = {}
    done = admin.run(*words, name)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    assert "is not a name or an id" in done.stderr or "There is no model" in done.stderr
    assert [path for _, path, _ in admin.requests if path != "/healthz"] == []


def test_a_name_is_quoted_in_a_path() -> None:
    assert client.url_of("/admin/teams", "red?x=1#%2F") == "/admin/teams/red%3Fx%3D1%23%252F"


def test_an_older_gateway_is_named_for_what_it_lacks(admin: AdminAPI) -> None:
    admin.answers["GET", "/admin/teams"] = {"data": [{"id": "red"}], "has_more": False}
    done = admin.run("teams", "list")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "is older than this CLI: its answer has no '" in done.stderr
    for code, status in (("unknown_url", 404), ("method_not_allowed", 405)):
        admin.answers["GET", "/admin/teams"] = {"error": {"message": "no", "code": code}}
        admin.status = status
        done = admin.run("teams", "list")
        assert done.exit_code == 1
        assert "is older than this CLI: it does not know GET /admin/teams" in done.stderr


def test_a_server_that_is_no_gateway_is_named(admin: AdminAPI) -> None:
    admin.answers["GET", "/admin/teams"] = {"detail": "Not Found"}
    admin.status = 404
    assert "is not a Quarterdeck gateway: it does not know /admin/teams" in admin.run("teams", "list").stderr
