"""An endpoint's parts: what its source says, how requests are addressed to it, and its load."""

import dataclasses
from typing import Any

import pytest
from tests.inference.making import an_endpoint

from quarterdeck.inference.endpoints.endpoint import Address, EndpointSpec, Load
from quarterdeck.settings.routes import HealthCheck

SPEC = EndpointSpec(
    "a#1", "a", "http://h:1/base", adapters=frozenset({"x"}), api_key="sk-up", headers=(("X-Org", "o"),)
)


def test_it_serves_its_model_and_its_adapters() -> None:
    assert [name for name in ("a", "x", "b") if SPEC.serves(name)] == ["a", "x"]


@pytest.mark.parametrize(
    "change", [{"url": "http://h:2"}, {"upstream_model": "b"}, {"api_key": "sk-2"}, {"kind": "openai"}, {"headers": ()}]
)
def test_another_address_or_another_way_to_call_it_is_another_server(change: dict[str, Any]) -> None:
    assert not SPEC.is_same_server(dataclasses.replace(SPEC, **change))


def test_another_state_or_bound_is_the_same_server() -> None:
    assert SPEC.is_same_server(dataclasses.replace(SPEC, state="draining", max_running=1, adapters=frozenset()))


def test_a_request_head_holds_the_endpoints_key_and_headers_and_is_built_once() -> None:
    address = Address(SPEC)
    head = address.head("/v1/x")
    assert head.startswith(b"POST /base/v1/x HTTP/1.1\r\nhost: h:1\r\n")
    assert b"authorization: Bearer sk-up\r\nX-Org: o\r\n" in head
    assert address.head("/v1/x") is head


def test_load_is_what_was_begun_and_not_ended() -> None:
    load = Load()
    load.begin(100)
    load.begin(20)
    load.end(100)
    assert (load.requests, load.tokens) == (1, 20)


def test_an_endpoint_without_a_health_check_is_alive() -> None:
    endpoint = an_endpoint(health=HealthCheck())
    endpoint.breaker.record_health(is_alive=False)
    endpoint.update(dataclasses.replace(endpoint.spec, max_running=1))
    assert not endpoint.breaker.is_alive
    endpoint.update(dataclasses.replace(endpoint.spec, health=None))
    assert endpoint.breaker.is_alive
