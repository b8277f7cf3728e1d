"""Routes, queues and external endpoints, and errors with their lines."""

import pytest

from quarterdeck.inference.routing.directory import Directory
from quarterdeck.settings.loading import ConfigError, parse

GOOD = """\
models:
  - name: big
    engine:
      source: big
      max_adapters: 1
      adapters: [{name: pirate, source: ./pirate}]
    routing: {policy: prefix}
  - name: small
    aliases: [tiny]
    endpoints:
      - url: https://api.example.com/v1
        kind: openai
        api_key_file: /run/secrets/key
        headers: {OpenAI-Organization: org-1}
        health: {path: /v1/models}
routes:
  - name: assistant
    targets:
      - {model: big, weight: 95}
      - {model: pirate, weight: 5}
    fallbacks:
      - model: small
        after: [error, context_length]
        contains: out of paper
    stickiness: session
    timeouts: {first_token: 10}
    retries: 0
    mirror: {model: small, share: 0.01}
queue:
  max_waiting: 100
  weights: {research: 0.5}
"""


def test_a_good_file_is_read() -> None:
    config = parse(GOOD)
    (route,) = config.routes
    assert [(target.model, target.weight) for target in route.targets] == [("big", 95), ("pirate", 5)]
    assert route.fallbacks[0].after == ("error", "context_length")
    assert config.models[0].routing.policy == "prefix"
    endpoint = config.models[1].endpoints[0]
    assert (endpoint.url, endpoint.kind, endpoint.health is not None) == ("https://api.example.com", "openai", True)
    assert config.queue.weights == {"research": 0.5}


def test_a_routes_name_resolves_like_a_models() -> None:
    directory = Directory.of(parse(GOOD))
    served, route = directory.names.get("assistant"), directory.routes["assistant"]
    assert served is not None
    assert served.name == "big", "its heaviest target is what the listing shows"
    assert [target.name for target in route.targets] == ["big", "pirate"]
    assert route.cumulative_weights == (0.95, 1.0)
    assert (route.retries, route.affinity) == (0, "session")
    assert route.mirror is not None
    assert [name for name, each in directory.routes.items() if not each.is_named] == ["big", "pirate", "small", "tiny"]


MISTAKES = {
    "a target that is no model": ("{model: pirate,", "{model: parrot,", 20, "unknown model or adapter 'parrot'"),
    "a target by its alias": ("{model: pirate,", "{model: tiny,", 20, "routes[0].targets[1].model: unknown model"),
    "a fallback that is no model": (
        "- model: small",
        "- model: none",
        22,
        "routes[0].fallbacks[0].model: unknown model",
    ),
    "a mirror that is no model": ("mirror: {model: small", "mirror: {model: none", 28, "routes[0].mirror.model:"),
    "a route with a model's name": ("name: assistant", "name: small", 17, "duplicate name 'small'"),
    "a route with a prompt's name": ("name: assistant", "name: 'prompt:a'", 17, "invalid name 'prompt:a'"),
    "a route with an alias' name": ("name: assistant", "name: tiny", 17, "duplicate name 'tiny'"),
    "a target that is given twice": ("{model: pirate,", "{model: big,", 17, "duplicate model among the targets"),
    "no weight": (
        "weight: 95}\n      - {model: pirate, weight: 5",
        "weight: 0",
        17,
        "requires a weight above",
    ),
    "a condition nobody knows": (
        "[error, context_length]",
        "[errors]",
        23,
        "fallbacks[0].after[0]: must be error",
    ),
    "a share of more than all": ("share: 0.01", "share: 1.5", 28, "routes[0].mirror.share: must be ≤ 1, not 1.5"),
    "a policy nobody knows": ("policy: prefix", "policy: best", 7, "models[0].routing.policy: must be "),
    "a session by a header that is not seen": (
        "policy: prefix",
        "policy: session, session: 'header:x-session'",
        7,
        "models[0].routing.session: header 'x-session' is not in gateway.forward_headers",
    ),
    "two keys": ("api_key_file:", "api_key_env: K\n        api_key_file:", 11, "set only one of `api_key_env` and"),
    "a header that is ours": ("OpenAI-Organization: org-1", "Authorization: x", 14, "'Authorization' can't be set"),
    "a header with a line's end": ("org-1", '"a\\r\\nHost: b"', 14, "not printable ASCII"),
    "a kind nobody knows": ("kind: openai", "kind: azure", 12, "kind: must be vllm, openai or ollama, not 'azure'"),
    "a path that is none": ("path: /v1/models", 'path: "/a b"', 15, "health.path: must match"),
    "a weight of nothing": ("research: 0.5", "research: 0", 31, "queue.weights.research: must be > 0, not 0"),
}


@pytest.mark.parametrize(("old", "new", "line", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_line(old: str, new: str, line: int, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace(old, new, 1))
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"quarterdeck.yaml:{line}: "), first
    assert message in first


def test_a_session_by_a_header_that_is_seen_is_good() -> None:
    text = GOOD.replace("policy: prefix", "policy: session, session: 'header:x-session'")
    assert parse(text + "gateway: {forward_headers: [X-Session]}\n").models[0].routing.session == "header:x-session"
