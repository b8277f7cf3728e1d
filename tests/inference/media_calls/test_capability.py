"""Which models an audio or image request may go to."""

from typing import Any

import pytest
from tests.inference.bench import Listed
from tests.inference.making import a_principal

from quarterdeck.errors import BadRequestError, NotFoundError, NotServedError
from quarterdeck.inference.media_calls.capability import serving_route
from quarterdeck.inference.routing.directory import Directory, Route
from quarterdeck.settings.loading import parse

CONFIG = """
models:
  - {name: chat, endpoints: [{url: "http://x"}]}
  - {name: one, aliases: [tts-1], endpoints: [{url: "http://x"}], serves: [audio.speech]}
  - {name: two, endpoints: [{url: "http://x"}], serves: [audio.speech, audio.transcriptions]}
routes:
  - {name: mixed, targets: [{model: chat, weight: 6}, {model: one, weight: 3}, {model: two, weight: 1}]}
  - {name: backed, targets: [{model: chat}], fallbacks: [{model: chat}, {model: two}]}
"""
DIRECTORY = Directory.of(parse(CONFIG))
SPEECH = "audio.speech"


def route_of(name: str, word: str = SPEECH, **principal: Any) -> Route:
    return serving_route(DIRECTORY, Listed(), name, word, a_principal(**principal))


def test_a_route_is_left_with_the_models_that_serve_the_operation() -> None:
    mixed = route_of("mixed")
    assert [each.name for each in mixed.targets] == ["one", "two"]
    assert mixed.cumulative_weights == pytest.approx((0.75, 1.0))
    assert {each.served.name for each in mixed.alternatives} == {"one", "two"}
    assert [each.name for each in route_of("mixed", "audio.transcriptions").targets] == ["two"]


def test_a_fallback_answers_where_no_target_serves_it() -> None:
    backed = route_of("backed")
    assert [each.name for each in backed.targets] == ["two"]
    assert route_of("one") is DIRECTORY.routes["one"]


def test_errors_name_the_models_that_the_key_may_use() -> None:
    with pytest.raises(BadRequestError, match=r"Models that support audio\.speech: backed, mixed, one, tts-1, two\."):
        route_of("chat")
    with pytest.raises(BadRequestError, match=r"Models that support audio\.speech: one, tts-1\.") as raised:
        route_of("chat", models=frozenset({"chat", "one"}))
    assert (raised.value.code, raised.value.param) == ("unsupported_operation", "model")
    with pytest.raises(NotFoundError) as missing:
        route_of("two", models=frozenset({"chat"}))
    assert "Models that" not in missing.value.message
    with pytest.raises(NotServedError, match=r"serves: \[images\.edits\]"):
        route_of("one", "images.edits")
