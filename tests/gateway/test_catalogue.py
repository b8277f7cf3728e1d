"""A route is listed for the keys that may use it, and is ready while one of its models is."""

import pytest
from tests.gateway.fakes import endpoint
from tests.inference.making import a_principal

from quarterdeck.gateway.catalogue import availability, best_availability, is_allowed, names
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.settings.loading import parse

DIRECTORY = Directory.of(
    parse("""
models:
  - {name: m, aliases: [gpt], endpoints: [{url: "http://h:1"}]}
  - {name: n, endpoints: [{url: "http://h:2"}]}
routes: [{name: r, targets: [{model: m}], fallbacks: [{model: n}]}]
""")
)


@pytest.mark.parametrize(
    ("allowed", "seen"),
    [
        (None, {"m", "gpt", "n", "r"}),
        ({"r"}, {"r"}),
        ({"m"}, {"m", "gpt"}),
        ({"m", "n"}, {"m", "gpt", "n", "r"}),
        ({"gpt"}, {"gpt"}),
        (set(), set()),
    ],
)
def test_a_route_is_shown_by_its_name_or_with_all_who_may_answer(allowed: set[str] | None, seen: set[str]) -> None:
    principal = a_principal(models=None if allowed is None else frozenset(allowed))
    found = names(DIRECTORY, [])
    assert {name for name, served in found.items() if is_allowed(DIRECTORY, name, served, principal)} == seen


def test_a_route_is_ready_while_anybody_answers_for_it() -> None:
    away, there = endpoint("m#1", "m", "starting"), endpoint("n#1", "n")
    served = DIRECTORY.names["r"]
    assert best_availability(DIRECTORY, "r", served, [away], 0.0).state == "starting"
    assert best_availability(DIRECTORY, "r", served, [away, there], 0.0).state == "ready"
    assert best_availability(DIRECTORY, "r", served, [], 0.0).state == "unavailable"


def test_one_that_does_not_answer_its_health_check_rests() -> None:
    found = availability("m", [endpoint("m#1", "m", is_alive=False, health_error="connection failed")], 0.0)
    assert (found.state, found.detail) == ("resting", "connection failed")


def test_one_without_its_key_is_unavailable_and_says_why() -> None:
    keyless = endpoint("m#1", "m", problem="environment variable X is not set")
    found = availability("m", [keyless], 0.0)
    assert (found.state, found.detail) == ("unavailable", "environment variable X is not set")
    assert availability("m", [keyless, endpoint("m#2", "m")], 0.0).state == "ready"


def test_an_adapter_that_could_not_be_loaded_is_listed_with_the_reason() -> None:
    broken = endpoint("m#1", "m", failed_adapters={"pirate": "its folder has no adapter_config.json"})
    assert names(DIRECTORY, [broken])["pirate"].model == "m"
    found = availability("pirate", [broken], 0.0)
    assert (found.state, found.detail) == ("unavailable", "its folder has no adapter_config.json")
    loaded = endpoint("m#2", "m", adapters=frozenset({"pirate"}))
    assert availability("pirate", [broken, loaded], 0.0).is_ready
    assert availability("m", [broken], 0.0).is_ready
