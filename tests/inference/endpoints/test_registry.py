"""Several sources are one set, whose parts stay the same objects while nothing changes."""

import asyncio
from collections.abc import Sequence

import pytest

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.endpoints.registry import EndpointRegistry
from quarterdeck.inference.endpoints.sources import EndpointSource, StaticEndpoints
from quarterdeck.settings.live import Live
from quarterdeck.settings.loading import parse

TWO = parse('models: [{name: a, endpoints: [{url: "http://h:1"}, {url: "http://h:2"}]}]')
MORE = parse('models: [{name: a, endpoints: [{url: "http://h:3"}]}, {name: c, endpoints: [{url: "http://h:4"}]}]')
OTHER = parse('models: [{name: c, endpoints: [{url: "http://h:5"}]}]')


def ids(endpoints: Sequence[Endpoint]) -> list[str]:
    return [endpoint.id for endpoint in endpoints]


def test_several_sources_are_one_list() -> None:
    source = StaticEndpoints(Live(TWO), {})
    assert len(EndpointRegistry([source]).all()) == 2
    assert len(EndpointRegistry([source, source]).all()) == 4


def test_the_index_follows_the_sources_and_stays_the_same_object_where_nothing_changed() -> None:
    static, second = StaticEndpoints(Live(TWO), {}), Live(MORE)
    sources: list[EndpointSource] = [static]
    registry = EndpointRegistry(sources)
    before = registry.serving("a")
    assert ids(before) == ids(static.all())
    assert registry.serving("a") is before
    assert registry.serving("nobody") == ()
    sources.append(StaticEndpoints(second, {}))
    assert ids(registry.serving("a")) == [*ids(before), "a@http://h:3"]
    assert ids(registry.serving("c")) == ["c@http://h:4"]
    second.replace(OTHER)
    assert ids(registry.serving("a")) == ids(before)
    assert ids(registry.serving("c")) == ["c@http://h:5"]
    sources.pop()
    assert registry.serving("c") == ()


class Failing(StaticEndpoints):
    async def run(self) -> None:
        raise OSError("watch failed")


async def test_it_follows_all_sources_until_it_is_cancelled() -> None:
    task = asyncio.create_task(EndpointRegistry([StaticEndpoints(Live(TWO), {})]).run())
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_a_source_that_ends_with_an_error_ends_it() -> None:
    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        await EndpointRegistry([StaticEndpoints(Live(TWO), {}), Failing(Live(TWO), {})]).run()
