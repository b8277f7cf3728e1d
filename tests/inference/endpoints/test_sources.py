"""Who is listed, what is remembered of them, and what an engine door that fails does to the list."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.inference.making import as_json
from tests.net.upstream import Peer, Upstream, answering, response, until

from quarterdeck.inference.endpoints.sources import (
    Endpoint,
    JoinedEndpoints,
    Listed,
    PolledEndpoints,
    Source,
    StaticEndpoints,
    indexed,
    merge,
)
from quarterdeck.net.http_client import HttpClient
from quarterdeck.settings.loading import parse

CONFIG = parse("""
models:
  - name: a
    endpoints:
      - {url: "http://h:1", model: upstream, api_key_env: A_KEY, max_running: 7}
      - {url: "http://h:2", api_key_env: NO_KEY}
  - name: b
    engine: {source: b}
""")


def a_row(id: str = "a#1", **changes: Any) -> dict[str, Any]:
    return {"id": id, "model": "a", "url": "http://127.0.0.1:30001", "state": "ready", "max_running": 32} | changes


def a_listing(*rows: dict[str, Any]) -> bytes:
    return response(as_json({"endpoints": rows}))


# from the file


def test_the_files_endpoints_are_ready_with_their_keys() -> None:
    first, second = StaticEndpoints(CONFIG, {"A_KEY": "sk-up\n"}).all()
    assert (first.model, first.upstream_model, first.api_key, first.max_running) == ("a", "upstream", "sk-up", 7)
    assert (first.state, second.api_key) == ("ready", None)
    assert b"authorization: Bearer sk-up\r\n" in first.head("/v1/x")
    assert "sk-up" not in repr(first)


def test_a_reload_keeps_what_is_known_of_an_endpoint_that_stays() -> None:
    before = StaticEndpoints(CONFIG, {"A_KEY": "k"})
    before.all()[0].in_flight = 3
    after = StaticEndpoints(CONFIG, {"A_KEY": "k"}, before=before)
    assert after.all()[0].in_flight == 3
    other_key = StaticEndpoints(CONFIG, {"A_KEY": "other"}, before=before)
    assert b"Bearer other" in other_key.all()[0].head("/v1/x")


# from the engine door


async def test_the_doors_list_is_polled_and_kept_while_it_is_away(
    client: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    back = asyncio.Event()

    async def later(peer: Peer) -> None:
        await back.wait()
        await peer.say(a_listing(a_row(), a_row("a#2", state="starting", url="", detail="loading weights")))

    bad = [
        response(b"no", status=500),
        response(b"{"),
        response(b'{"endpoints":[{"id":"\xff"}]}'),
        a_listing(a_row(state="sleeping")),
        a_listing(a_row(max_running=0)),
        a_listing(a_row(url="http://h:99999")),
        a_listing(a_row(url="http://[::1")),
        response(b'{"endpoints":' + b"[" * 100_000),
        b"garbage",
    ]
    async with Upstream(answering(a_listing(a_row()), *bad, later)) as upstream:
        polled = PolledEndpoints(upstream.url, client, interval=0.0)
        task = asyncio.create_task(polled.run())
        await until(lambda: len(upstream.requests) == len(bad) + 2)
        assert [endpoint.id for endpoint in polled.all()] == ["a#1"]
        back.set()
        await until(lambda: len(polled.all()) == 2)
        assert polled.all()[1].detail == "loading weights"
        assert upstream.requests[0].head.startswith(b"GET /endpoints HTTP/1.1\r\n")
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2, "one line for each change, not one a poll"
    assert "its last list holds" in lines[0]
    assert "answers again" in lines[1]


async def test_a_door_that_is_not_there_yet_is_asked_again(client: HttpClient) -> None:
    async with Upstream(answering()) as gone:
        pass
    polled = PolledEndpoints(gone.url, client, interval=0.0)
    task = asyncio.create_task(polled.run())
    await asyncio.sleep(0.05)
    assert (polled.all(), task.done()) == ((), False)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_an_endpoint_that_stays_keeps_what_is_known_of_it() -> None:
    first = merge({}, [Listed("a#1", "a", "starting", "http://h:1")])
    endpoint = first["a#1"]
    endpoint.in_flight, endpoint.failures = 5, 2
    second = merge(first, [Listed("a#1", "a", "draining", "http://h:1", adapters=["x"], max_running=9)])
    assert second["a#1"] is endpoint
    assert (endpoint.state, endpoint.adapters, endpoint.max_running) == ("draining", frozenset({"x"}), 9)
    assert (endpoint.in_flight, endpoint.failures) == (5, 2)


def test_a_new_address_is_a_new_endpoint() -> None:
    first = merge({}, [Listed("a#1", "a", "ready", "http://h:1")])
    first["a#1"].failures = 3
    second = merge(first, [Listed("a#1", "a", "ready", "http://h:2")])
    assert (second["a#1"].failures, second["a#1"].origin.port) == (0, 2)


def test_what_is_listed_no_more_is_gone() -> None:
    assert merge(merge({}, [Listed("a#1", "a", "ready", "http://h:1")]), []) == {}


def test_several_sources_are_one_list() -> None:
    static = StaticEndpoints(CONFIG, {})
    sources: list[Source] = [static]
    joined = JoinedEndpoints(lambda: sources)
    assert len(joined.all()) == 2
    sources.append(static)
    assert len(joined.all()) == 4


def ids(endpoints: Sequence[Endpoint]) -> list[str]:
    return [endpoint.id for endpoint in endpoints]


def test_those_that_are_ready_are_found_by_each_name_they_serve() -> None:
    listed = [
        Listed("a#1", "a", "ready", "http://h:1", adapters=["x"]),
        Listed("a#2", "a", "ready", "http://h:2"),
        Listed("a#3", "a", "draining", "http://h:3", adapters=["x"]),
        Listed("b#1", "b", "ready", "http://h:4"),
    ]
    index = indexed(merge({}, listed).values())
    assert {name: ids(found) for name, found in index.items()} == {"a": ["a#1", "a#2"], "x": ["a#1"], "b": ["b#1"]}


def test_the_index_follows_the_set_and_stays_the_same_object_where_nothing_changed() -> None:
    static = StaticEndpoints(CONFIG, {})
    sources: list[Source] = [static]
    joined = JoinedEndpoints(lambda: sources)
    before = joined.serving("a")
    assert ids(before) == ids(static.all())
    assert joined.serving("a") is before
    assert joined.serving("nobody") == ()
    more = parse('models: [{name: a, endpoints: [{url: "http://h:3"}]}, {name: c, endpoints: [{url: "http://h:4"}]}]')
    sources.append(StaticEndpoints(more, {}))
    assert ids(joined.serving("a")) == [*ids(before), "a@http://h:3"]
    assert ids(joined.serving("c")) == ["c@http://h:4"]
    sources[1] = StaticEndpoints(parse('models: [{name: c, endpoints: [{url: "http://h:5"}]}]'), {})
    assert ids(joined.serving("a")) == ids(before)
    assert ids(joined.serving("c")) == ["c@http://h:5"]
    sources.pop()
    assert joined.serving("c") == ()


def test_a_reload_that_changes_nothing_keeps_the_index() -> None:
    before = StaticEndpoints(CONFIG, {"A_KEY": "k"})
    after = StaticEndpoints(CONFIG, {"A_KEY": "k"}, before=before)
    assert after.index["a"] is before.index["a"]


# elsewhere


def test_a_key_may_stand_in_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-file\n")
    text = "models: [{name: a, endpoints: [{url: 'http://h', api_key_file: FILE}]}]"
    (endpoint,) = StaticEndpoints(parse(text.replace("FILE", str(secret))), {}).all()
    assert b"authorization: Bearer sk-file\r\n" in endpoint.head("/v1/x")
    (keyless,) = StaticEndpoints(parse(text.replace("FILE", str(tmp_path / "none"))), {}).all()
    assert keyless.api_key is None
    assert "can't be read" in caplog.text


def test_a_key_that_was_changed_in_its_file_is_taken_by_a_reload(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("one")
    config = parse(f"models: [{{name: a, endpoints: [{{url: 'http://h', api_key_file: {secret}}}]}}]")
    before = StaticEndpoints(config, {})
    secret.write_text("two")
    (endpoint,) = StaticEndpoints(config, {}, before=before).all()
    assert b"Bearer two" in endpoint.head("/v1/x")


def test_an_endpoint_elsewhere_is_sent_the_headers_of_the_file() -> None:
    text = "models: [{name: a, endpoints: [{url: 'http://h', kind: openai, headers: {OpenAI-Organization: org-1}}]}]"
    (endpoint,) = StaticEndpoints(parse(text), {}).all()
    assert b"OpenAI-Organization: org-1\r\n" in endpoint.head("/v1/x")
    assert endpoint.kind == "openai"
