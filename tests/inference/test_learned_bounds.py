"""A model's context need not be configured."""

from collections.abc import Sequence

from tests.inference.bench import Listed
from tests.inference.making import an_endpoint

from quarterdeck.inference.bounds import MAX_OUTPUT_TOKENS, Bounds
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.learned_bounds import LearnedBounds
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.settings.loading import parse

DIRECTORY = Directory.of(
    parse(
        """
models:
  - {name: m, endpoints: [{url: "http://unused"}]}
  - {name: set, endpoints: [{url: "http://unused"}], context: 1000}
  - {name: capped, endpoints: [{url: "http://unused"}], max_output_tokens: 100}
  - {name: hosted, endpoints: [{url: "http://unused", kind: openai}]}
routes:
  - {name: both, targets: [{model: m}], fallbacks: [{model: set}]}
  - {name: mixed, targets: [{model: m}], fallbacks: [{model: hosted}]}
"""
    )
)


def endpoints(*contexts: int | None, model: str = "m") -> list[Endpoint]:
    found = [an_endpoint(f"{model}#{at}", model=model) for at in range(len(contexts))]
    for endpoint, context in zip(found, contexts, strict=True):
        endpoint.context = context
    return found


def of(name: str, *listed: Sequence[Endpoint]) -> Bounds:
    return LearnedBounds(Listed([each for some in listed for each in some])).of(DIRECTORY.routes[name], 0.0)


def test_the_longest_context_of_the_models_endpoints_bounds_it() -> None:
    assert of("m", endpoints(2048, 4096)) == Bounds(4096, 4096, False)
    assert of("m", endpoints(2048, None)) == Bounds(None, MAX_OUTPUT_TOKENS, False)
    assert of("m") == Bounds(None, MAX_OUTPUT_TOKENS, False)


def test_a_route_is_bounded_where_all_of_its_models_are() -> None:
    assert of("both", endpoints(2048)).context == 2048
    assert of("both", endpoints(500)).context == 1000
    mixed = of("mixed", endpoints(9000))
    assert (mixed.context, mixed.output, mixed.is_sent) == (None, 9000, False)


def test_a_configured_output_stays_and_is_within_the_context() -> None:
    assert of("capped", endpoints(2048, model="capped")) == Bounds(2048, 100, True)
    assert of("capped", endpoints(50, model="capped")) == Bounds(50, 50, True)


def test_it_is_looked_up_once_a_second_and_again_after_a_reload() -> None:
    listed = endpoints(2048)
    learned, route = LearnedBounds(Listed(listed)), DIRECTORY.routes["m"]
    assert learned.of(route, 0.0).context == 2048
    listed[0].context = 4096
    assert learned.of(route, 0.5).context == 2048
    assert learned.of(route, 1.5).context == 4096
    listed[0].context = 8192
    reloaded = Directory.of(DIRECTORY.config).routes["m"]
    assert learned.of(reloaded, 1.6).context == 8192
