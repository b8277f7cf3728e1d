"""A worker in a cluster waits a while for its first configuration, and starts without it if it must."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.kube.api_server import ApiServer
from tests.net.upstream import until

from quarterdeck.kube.api import KubeApi
from quarterdeck.kube.config_source import ConfigMapSource
from quarterdeck.worker import __main__ as main
from quarterdeck.worker.__main__ import first_config

PATH = "/api/v1/namespaces/ns/configmaps"


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as made:
        yield made


@pytest.fixture
async def source(server: ApiServer, tmp_path: Path) -> AsyncIterator[ConfigMapSource]:
    api = KubeApi(server.access())
    made = ConfigMapSource(api, "config", mounted=tmp_path)
    made.read()
    yield made
    await api.close()


async def write(server: ApiServer, text: str) -> None:
    await server.put(PATH, {"metadata": {"name": "config"}, "data": {"quarterdeck.yaml": text}})


async def test_the_first_configuration_is_waited_for(server: ApiServer, source: ConfigMapSource) -> None:
    waiting = asyncio.create_task(first_config(source, asyncio.Event()))
    await until(lambda: bool(server.requests))
    await write(server, "{models: [], telemetry: {service_name: mine}}")
    config = await waiting
    assert config is not None and config.telemetry.service_name == "mine"
    assert source.waiting is None


async def test_it_is_followed_afterwards(server: ApiServer, source: ConfigMapSource) -> None:
    await write(server, "models: []")
    assert await first_config(source, asyncio.Event()) is not None
    following = asyncio.create_task(source.run())
    await write(server, "{models: [], telemetry: {service_name: later}}")
    async with asyncio.timeout(10):
        assert (await source.changed()).telemetry.service_name == "later"
    following.cancel()


async def test_the_worker_starts_without_it_if_it_must(
    source: ConfigMapSource, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(main, "FIRST_CONFIG_SECONDS", 0.01)
    assert await first_config(source, asyncio.Event()) is None
    assert "starting without a configuration" in caplog.text


async def test_an_invalid_one_is_not_waited_out(server: ApiServer, source: ConfigMapSource) -> None:
    await write(server, "models: 7")
    assert await first_config(source, asyncio.Event()) is None
    assert source.waiting is not None


async def test_a_signal_ends_the_wait(source: ConfigMapSource) -> None:
    stop = asyncio.Event()
    stop.set()
    assert await first_config(source, stop) is None
