"""Where endpoints come from: the configuration, and the engine door, which may fail."""

import asyncio
import errno
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.inference.making import as_json
from tests.net.upstream import Peer, Upstream, answering, response, until

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.endpoints.sources import (
    ListedEndpoint,
    Listing,
    PolledEndpoints,
    StaticEndpoints,
    indexed,
    listed,
)
from quarterdeck.net.http_client import HttpClient
from quarterdeck.settings.config import Config
from quarterdeck.settings.live import Live
from quarterdeck.settings.loading import ConfigError, parse

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


def ids(endpoints: Sequence[Endpoint]) -> list[str]:
    return [endpoint.id for endpoint in endpoints]


def static(config: Config, **variables: str) -> StaticEndpoints:
    return StaticEndpoints(Live(config), variables)


# from the configuration


def test_configured_endpoints_are_ready_with_their_keys(caplog: pytest.LogCaptureFixture) -> None:
    first, second = static(CONFIG, A_KEY="sk-up\n").all()
    spec = first.spec
    assert (spec.model, spec.upstream_model, spec.api_key, spec.max_running) == ("a", "upstream", "sk-up", 7)
    assert (spec.state, second.spec.api_key) == ("ready", None)
    assert b"authorization: Bearer sk-up\r\n" in first.address.head("/v1/x")
    assert "sk-up" not in repr(first) + repr(spec)
    assert [record.message for record in caplog.records] == ["a: environment variable NO_KEY is not set"]


def test_an_endpoint_that_a_reload_leaves_as_it_is_keeps_its_load() -> None:
    config, variables = Live(CONFIG), {"A_KEY": "k"}
    source = StaticEndpoints(config, variables)
    first = source.all()[0]
    first.load.begin(10)
    config.replace(CONFIG)
    assert source.all()[0] is first
    assert first.load.requests == 1
    variables["A_KEY"] = "other"
    config.replace(CONFIG)
    assert source.all()[0] is not first
    assert b"Bearer other" in source.all()[0].address.head("/v1/x")


def test_a_reload_that_changes_nothing_keeps_the_index() -> None:
    config = Live(CONFIG)
    source = StaticEndpoints(config, {"A_KEY": "k"})
    before = source.index["a"]
    config.replace(CONFIG)
    assert source.index["a"] is before


def test_a_key_may_stand_in_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-file\n")
    text = "models: [{name: a, endpoints: [{url: 'http://h', api_key_file: FILE}]}]"
    (endpoint,) = static(parse(text.replace("FILE", str(secret)))).all()
    assert b"authorization: Bearer sk-file\r\n" in endpoint.address.head("/v1/x")
    (keyless,) = static(parse(text.replace("FILE", str(tmp_path / "none")))).all()
    assert keyless.spec.api_key is None
    assert "can't read api_key_file" in caplog.text


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("api_key_env: NO_KEY", "environment variable NO_KEY is not set"),
        ("api_key_env: EMPTY", "environment variable EMPTY is not set"),
        ("api_key_env: A_KEY", ""),
        ("api_key_file: /nowhere", "can't read api_key_file /nowhere: No such file or directory"),
        ("api_key_file: /dev/null", "can't read api_key_file /dev/null: not a regular file"),
        ("model: x", ""),
    ],
)
def test_a_key_that_is_configured_and_missing_is_the_endpoints_problem(key: str, problem: str) -> None:
    config = parse(f"models: [{{name: a, endpoints: [{{url: 'http://h', {key}}}]}}]")
    (endpoint,) = StaticEndpoints(Live(config), {"A_KEY": "k", "EMPTY": " "}).all()
    assert endpoint.spec.problem == problem
    assert endpoint.spec.is_probed


def test_a_key_that_was_changed_in_its_file_is_taken_by_a_reload(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("one")
    config = Live(parse(f"models: [{{name: a, endpoints: [{{url: 'http://h', api_key_file: {secret}}}]}}]"))
    source = StaticEndpoints(config, {})
    secret.write_text("two")
    config.replace(config.current)
    (endpoint,) = source.all()
    assert b"Bearer two" in endpoint.address.head("/v1/x")


def test_a_reload_without_a_free_descriptor_takes_no_key_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "key"
    secret.write_text("one")
    config = Live(parse(f"models: [{{name: a, endpoints: [{{url: 'http://h', api_key_file: {secret}}}]}}]"))
    source = StaticEndpoints(config, {})

    def full(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("quarterdeck.inference.endpoints.sources.read_file", full)
    with pytest.raises(ConfigError, match="Too many open files"):
        config.replace(config.current)
    (endpoint,) = source.all()
    assert b"Bearer one" in endpoint.address.head("/v1/x")


def test_a_foreign_endpoint_is_sent_the_configured_headers() -> None:
    text = "models: [{name: a, endpoints: [{url: 'http://h', kind: openai, headers: {OpenAI-Organization: org-1}}]}]"
    (endpoint,) = static(parse(text)).all()
    assert b"OpenAI-Organization: org-1\r\n" in endpoint.address.head("/v1/x")
    assert endpoint.spec.kind == "openai"


def test_an_endpoint_whose_health_check_was_removed_is_alive() -> None:
    text = "models: [{name: a, endpoints: [{url: 'http://h'HEALTH}]}]"
    config = Live(parse(text.replace("HEALTH", ", health: {}")))
    source = StaticEndpoints(config, {})
    (endpoint,) = source.all()
    endpoint.breaker.record_health(is_alive=False)
    config.replace(config.current)
    assert not endpoint.breaker.is_alive
    config.replace(parse(text.replace("HEALTH", "")))
    assert source.all()[0] is endpoint
    assert endpoint.breaker.is_alive


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
        assert ids(polled.all()) == ["a#1"]
        back.set()
        await until(lambda: len(polled.all()) == 2)
        assert polled.all()[1].spec.detail == "loading weights"
        assert upstream.requests[0].head.startswith(b"GET /endpoints HTTP/1.1\r\n")
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2, "one line for each change, not one a poll"
    assert "keeping its last endpoint list" in lines[0]
    assert "reachable again" in lines[1]


async def test_a_door_that_is_not_there_yet_is_asked_again(
    client: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    async with Upstream(answering()) as gone:
        pass
    polled = PolledEndpoints(gone.url, client, interval=0.0)
    task = asyncio.create_task(polled.run())
    await until(lambda: "engine door unreachable" in caplog.text)
    assert (polled.all(), task.done()) == ((), False)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# what both do


def test_an_endpoint_that_stays_listed_keeps_its_load_and_breaker() -> None:
    first = listed([], [ListedEndpoint("a#1", "a", "starting", "http://h:1")])
    (endpoint,) = first
    endpoint.load.requests, endpoint.breaker.failures = 5, 2
    (same,) = listed(first, [ListedEndpoint("a#1", "a", "draining", "http://h:1", adapters=["x"], max_running=9)])
    assert same is endpoint
    spec = endpoint.spec
    assert (spec.state, spec.adapters, spec.max_running) == ("draining", frozenset({"x"}), 9)
    assert (endpoint.load.requests, endpoint.breaker.failures) == (5, 2)


def test_a_new_address_is_a_new_endpoint() -> None:
    first = listed([], [ListedEndpoint("a#1", "a", "ready", "http://h:1")])
    first[0].breaker.failures = 3
    (second,) = listed(first, [ListedEndpoint("a#1", "a", "ready", "http://h:2")])
    assert (second.breaker.failures, second.address.origin.port) == (0, 2)


def test_an_endpoint_that_is_not_listed_any_more_is_dropped() -> None:
    assert listed(listed([], [ListedEndpoint("a#1", "a", "ready", "http://h:1")]), []) == []


def test_of_rows_with_the_same_id_the_last_counts() -> None:
    rows = [ListedEndpoint("a#1", "a", "ready", "http://h:1"), ListedEndpoint("a#1", "a", "ready", "http://h:2")]
    assert [endpoint.address.origin.port for endpoint in listed([], rows)] == [2]


def test_ready_endpoints_are_indexed_by_each_name_they_serve() -> None:
    rows = [
        ListedEndpoint("a#1", "a", "ready", "http://h:1", adapters=["x"]),
        ListedEndpoint("a#2", "a", "ready", "http://h:2"),
        ListedEndpoint("a#3", "a", "draining", "http://h:3", adapters=["x"]),
        ListedEndpoint("b#1", "b", "ready", "http://h:4"),
    ]
    index = indexed(listed([], rows))
    assert {name: ids(found) for name, found in index.items()} == {"a": ["a#1", "a#2"], "x": ["a#1"], "b": ["b#1"]}


def test_an_endpoint_knows_its_adapters_by_the_names_of_their_content() -> None:
    row = b'{"id":"a#1","model":"a","state":"ready","url":"http://h:1","version":"7f","adapters":{"x":"x@1f"},'
    body = b'{"endpoints":[' + row + b'"failed_adapters":{"y":"no files"}}]}'
    (endpoint,) = listed([], msgspec.json.decode(body, type=Listing).endpoints)
    spec = endpoint.spec
    assert (spec.serves("x"), spec.name_of("x"), spec.name_of("a")) == (True, "x@1f", None)
    assert (spec.weights_of("x"), spec.weights_of("a"), dict(spec.failed_adapters)) == ("x@1f", "7f", {"y": "no files"})


async def test_a_key_whose_file_appears_or_changes_later_is_used(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    config = Live(parse(f"models: [{{name: a, endpoints: [{{url: 'http://h', api_key_file: {secret}}}]}}]"))
    source = StaticEndpoints(config, {}, key_poll_seconds=0.01)
    assert source.all()[0].spec.api_key is None
    following = asyncio.create_task(source.run())
    try:
        for key in ("sk-first", "sk-second-one"):
            secret.write_text(key)
            await until(lambda key=key: source.index["a"][0].spec.api_key == key, seconds=30)
        assert source.all()[0].spec.problem == ""
    finally:
        following.cancel()
