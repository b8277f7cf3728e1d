"""The page for browsers at the base URL, and that nothing else there needs no key."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.fakes import USER, Client, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.catalogue import Availability
from quarterdeck.gateway.http.home_page import MAX_MODELS, PATHS, STATUS_TEXT, render
from quarterdeck.gateway.readiness import Report

BROWSER = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
LOCAL = ("host", "127.0.0.1:8000")


class Elements(HTMLParser):
    """Tags and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def report(status: str = "ready", **models: Availability) -> Report:
    return Report(status in ("ready", "degraded"), status, {}, models)


@pytest.mark.parametrize("path", sorted(PATHS))
async def test_a_browser_gets_a_page_with_the_status_and_a_call(path: str) -> None:
    answer = await Client(create_app(parts()), key=None).get(path, headers=[BROWSER, LOCAL])
    page = answer.body.decode()
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "Ready, but a part or a model is not." in page
    assert "no endpoint answers for it" in page
    assert "OPENAI_BASE_URL=http://127.0.0.1:8000/v1" in page
    assert '"model": "chat"' in page


async def test_the_page_loads_nothing_and_runs_nothing() -> None:
    answer = await Client(create_app(parts()), key=None).get("/", headers=[BROWSER])
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    style = re.search(rb"<style>(.*?)</style>", answer.body, re.DOTALL)
    assert style is not None
    assert base64.b64encode(hashlib.sha256(style[1]).digest()).decode() in policy, "the browser would drop the style"
    elements = Elements()
    elements.feed(answer.body.decode())
    for tag, attributes in elements.found:
        assert tag not in ("script", "iframe", "img", "form", "object")
        assert not {"src", "style", "onclick"} & attributes.keys()
        assert attributes.get("href", "data:,") == "data:,"


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/event-stream", "text/plain"])
async def test_an_api_client_gets_its_401_and_404(accept: str | None) -> None:
    headers = [LOCAL] if accept is None else [LOCAL, ("accept", accept)]
    app = create_app(parts())
    for path in PATHS:
        without = await Client(app, key=None).get(path, headers=headers)
        with_key = await Client(app, key=USER).get(path, headers=headers)
        assert (without.status, without.error["code"]) == (401, "missing_api_key")
        assert (with_key.status, with_key.error["code"]) == (404, "unknown_url")


@pytest.mark.parametrize("path", ["/v1/models", "/admin/keys", "//", "/index.html", "/v1/v1"])
async def test_a_browser_needs_a_key_for_every_other_path(path: str) -> None:
    assert (await Client(create_app(parts()), key=None).get(path, headers=[BROWSER])).status == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_only_get_and_head_answer_the_page(method: str) -> None:
    assert (await Client(create_app(parts()), key=None).request(method, "/", headers=[BROWSER])).status == 401
    assert (await Client(create_app(parts()), key=None).request("HEAD", "/", headers=[BROWSER])).status == 200


async def test_on_loopback_a_foreign_name_learns_only_the_status_and_is_not_repeated() -> None:
    app = create_app(replace(parts(), is_loopback=True))
    page = (await Client(app, key=None).get("/", headers=[BROWSER, ("host", "evil.example")])).body.decode()
    assert "Ready" in page
    assert "evil.example" not in page
    assert "no endpoint answers for it" not in page
    assert '"model": "MODEL"' in page


async def test_elsewhere_a_host_name_is_not_repeated_but_models_are_shown() -> None:
    answer = await Client(create_app(parts()), key=None).get("/", headers=[BROWSER, ("host", 'x"><script>')])
    assert b"<script" not in answer.body
    assert b"https://THIS-HOST/v1" in answer.body
    assert b"no endpoint answers for it" in answer.body


@given(name=st.text(min_size=1), detail=st.text())
def test_names_and_details_are_text(name: str, detail: str) -> None:
    page = render(report(**{name: Availability("starting", detail)}), None, shows_models=True)
    elements = Elements()
    elements.feed(page)
    plain = Elements()
    plain.feed(render(report(**{"a": Availability("starting", "b")}), None, shows_models=True))
    assert [tag for tag, _ in elements.found] == [tag for tag, _ in plain.found]


def test_until_it_is_ready_the_page_reloads_itself() -> None:
    for status, (_, text) in STATUS_TEXT.items():
        page = render(report(status), None, shows_models=True)
        assert text in page
        assert ('http-equiv="refresh"' in page) == (status not in ("ready", "degraded"))


def test_a_thousand_models_are_not_all_listed() -> None:
    many = {f"m{i}": Availability("ready", task="generate") for i in range(1000)}
    page = render(report(**many), None, shows_models=True)
    assert page.count("<tr>") == MAX_MODELS
    assert "and 900 more" in page
