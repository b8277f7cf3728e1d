"""A gateway process in a cluster: not ready before it has a configuration, and then whatever its ConfigMap says."""

import asyncio
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kube.api_server import ApiServer
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import short_folder

from quarterdeck.kube.compiled import Documents, EngineEntry, EngineIndex, to_config_map

MAPS = "/api/v1/namespaces/ns/configmaps"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices"
KEY, TOKEN = "sk-qd-" + "a1B2c3D4e5" * 4, "operator-token-of-the-test"
MODEL = {"name": "chat", "engine": {"source": "sim"}, "cold_wait_seconds": 30}


@pytest.fixture
def folder() -> Iterator[Path]:
    made = short_folder()
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as made:
        yield made


class Member:
    """The process and the API server that it follows, in this test's loop."""

    def __init__(self, folder: Path, server: ApiServer, redis_url: str) -> None:
        self.server = server
        kubeconfig = folder / "kubeconfig"
        document = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "namespace": "ns"}}],
            "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{server.port}"}}],
        }
        kubeconfig.write_text(yaml.safe_dump(document))
        parts = {
            "KUBECONFIG": str(kubeconfig),
            "QUARTERDECK_CONFIG_MAP": "config",
            "QUARTERDECK_REDIS_URL": redis_url,
            "QUARTERDECK_OPERATOR_TOKEN": TOKEN,
            "QUARTERDECK_BOOTSTRAP_KEY": KEY,
        }
        (folder / "mount").mkdir()
        self.process = GatewayProcess(folder / "mount", "", parts)
        self.process.config.unlink()  # as it is mounted before the ConfigMap exists
        self.process.launch()

    async def write(self, config: dict[str, Any], *engines: EngineEntry) -> None:
        index = EngineIndex(engines={each.object: each for each in engines})
        data = to_config_map(Documents(json.dumps(config), index.encode()))
        await self.server.put(MAPS, {"metadata": {"name": "config"}, **data})

    async def ask(self, path: str, body: Any = None, key: str = KEY) -> tuple[int, Any]:
        return await asyncio.to_thread(self._ask, path, body, key)

    def _ask(self, path: str, body: Any, key: str) -> tuple[int, Any]:
        request = urllib.request.Request(
            self.process.url + path,
            None if body is None else json.dumps(body).encode(),
            {"authorization": f"Bearer {key}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:  # it does not listen yet
            return 0, {"parts": {}}

    async def until(self, path: str, is_so: Any) -> Any:
        async with asyncio.timeout(60):
            while not is_so(found := await self.ask(path)):  # noqa: ASYNC110  # the other side is a process
                await asyncio.sleep(0.02)
        return found


async def test_a_gateway_is_what_its_config_map_says(folder: Path, server: ApiServer, redis_url: str) -> None:
    simulator = SimulatorProcess(folder, ["--model", "chat"])
    simulator.launch()
    member = Member(folder, server, redis_url)
    try:
        await member.until("/readyz", lambda found: "does not exist yet" in found[1]["parts"].get("cluster", ""))
        await member.write({"models": []})
        await member.until("/readyz", lambda found: found[0] == 200)
        await member.until("/admin/keys", lambda found: found[0] == 200)

        await member.write({"models": [MODEL]}, EngineEntry(object="chat", model="chat", state="Zero"))
        await member.until("/v1/models", lambda found: [each["state"] for each in found[1]["data"]] == ["idle"])
        chat = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
        held = asyncio.create_task(member.ask("/v1/chat/completions", chat))
        status, demand = await member.ask("/demand?wait=30&after=1", key=TOKEN)
        assert (status, demand["models"]["chat"]["waiting"]) == (200, 1)
        while not await asyncio.to_thread(simulator.answers):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.02)
        endpoint = {"addresses": ["127.0.0.1"], "conditions": {"ready": True}, "targetRef": {"name": "p", "uid": "p"}}
        labels = {
            "quarterdeck.dev/model": "chat",
            "quarterdeck.dev/role": "engine",
            "kubernetes.io/service-name": "model-chat",
        }
        ports = [{"name": "http", "port": simulator.port}]
        metadata = {"name": "chat-1", "labels": labels}
        await server.put(SLICES, {"metadata": metadata, "endpoints": [endpoint], "ports": ports})
        status, answer = await held
        assert (status, answer["model"]) == (200, "chat")

        gateway = {"shutdown_delay_seconds": 0}
        await member.write({"models": [{**MODEL, "name": "other"}], "gateway": gateway})
        await member.until("/v1/models", lambda found: [each["id"] for each in found[1]["data"]] == ["other"])
        assert "needs a restart" not in member.process.log.read_text()
    finally:
        await asyncio.to_thread(member.process.stop)
        await asyncio.to_thread(simulator.stop)
