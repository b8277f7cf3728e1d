"""A gateway in a real cluster follows its ConfigMap and EndpointSlices, and goes on while the API server is away."""

import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.cluster.gateway_process import TOKEN, ClusterGateway, engine, scale, until
from tests.cluster.kubectl import Kubectl
from tests.conftest import RedisServer

from quarterdeck.kube.compiled import EngineEntry

MODEL: dict[str, Any] = {"name": "chat", "engine": {"source": "sim"}, "cold_wait_seconds": 300}
CUT_SECONDS = float(os.environ.get("QUARTERDECK_TEST_CUT_SECONDS", "3"))
CONFIG: dict[str, Any] = {"models": [MODEL], "gateway": {"drain_seconds": 120}}


def entry(state: str = "Serving", **more: Any) -> EngineEntry:
    return EngineEntry(**({"object": "chat", "model": "chat", "state": state, "max_running": 8} | more))


@pytest.fixture(scope="module")
def gateway(
    namespace: Kubectl, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClusterGateway]:
    made = ClusterGateway(tmp_path_factory.mktemp("gateway"), namespace, redis_server.url(0))
    made.start()
    yield made
    made.ends()


def part(gateway: ClusterGateway, name: str) -> str:
    found: str = gateway.get("/readyz")[1]["parts"].get(name, "")
    return found


def test_it_waits_for_its_config_map_and_says_so(gateway: ClusterGateway) -> None:
    until(lambda: "does not exist yet" in part(gateway, "cluster"), "the reason")
    assert gateway.get("/readyz")[0] == 503
    gateway.write({"models": []})
    until(lambda: gateway.get("/readyz")[0] == 200, "ready without any Model")
    assert gateway.models() == {}


def test_the_bootstrap_key_opens_the_admin_api(gateway: ClusterGateway) -> None:
    until(lambda: gateway.ask("/admin/keys")[0] == 200, "the bootstrap key")


def test_a_change_is_in_force_within_a_second(
    gateway: ClusterGateway, record_property: Callable[[str, object], None]
) -> None:
    times = []
    for number in range(5):
        gateway.write({"models": [MODEL], "routes": [{"name": f"r{number}", "targets": [{"model": "chat"}]}]}, entry())
        times.append(until(lambda number=number: f"r{number}" in gateway.models(), "the new route"))
    record_property("seconds", times)
    print(f"a change is in force after {min(times):.3f} to {max(times):.3f} s")


def test_an_invalid_one_is_refused_and_the_last_good_one_kept(gateway: ClusterGateway) -> None:
    gateway.write({"models": [{"name": "chat", "nonsense": 1}]}, entry())
    until(lambda: "refused, keeping the previous one" in part(gateway, "config"), "the refusal")
    assert "chat" in gateway.models()
    gateway.write(CONFIG, entry("Zero"))
    until(lambda: part(gateway, "config") == "ready", "the valid one")


def test_a_request_for_a_model_at_zero_is_held_and_seen_by_the_operator(
    gateway: ClusterGateway, namespace: Kubectl, images: dict[str, str]
) -> None:
    namespace.apply(*engine(images["simulator"], 0))
    gateway.write(CONFIG, entry("Zero"))
    until(lambda: gateway.models() == {"chat": "idle"}, "idle")
    answers: list[tuple[int, Any]] = []
    held = threading.Thread(target=lambda: answers.append(gateway.chat()), daemon=True)
    held.start()
    version = 0

    def is_waiting() -> bool:
        nonlocal version
        status, demand = gateway.ask(f"/demand?wait=20&after={version}", key=TOKEN)
        version = demand["version"]
        assert status == 200
        return bool(demand["models"].get("chat", {}).get("waiting") == 1)

    print(f"the operator saw the held request after {until(is_waiting, 'the held request'):.3f} s")
    scale(namespace, 1)
    held.join(300)
    assert [status for status, _ in answers] == [200], answers


def test_endpoints_follow_the_pods(gateway: ClusterGateway, namespace: Kubectl) -> None:
    gateway.write(CONFIG, entry())
    until(lambda: gateway.models() == {"chat": "ready"}, "ready")
    scale(namespace, 2)
    until(lambda: served_by(gateway) == 2, "two endpoints")
    scale(namespace, 1)
    until(lambda: served_by(gateway) == 1, "one endpoint")
    assert gateway.chat()[0] == 200


def served_by(gateway: ClusterGateway) -> int:
    lines = gateway.get("/metrics")[1].splitlines()
    ready = [line for line in lines if line.startswith('quarterdeck_endpoints{model="chat",state="ready"}')]
    return int(ready[0].rsplit(" ", 1)[1]) if ready else 0


@pytest.mark.parametrize("way", ["freeze", "refuse"])
def test_an_api_server_out_of_reach_changes_nothing_and_is_found_again(gateway: ClusterGateway, way: str) -> None:
    getattr(gateway.wire, way)()
    gateway.write({**CONFIG, "routes": [{"name": f"after-{way}", "targets": [{"model": "chat"}]}]}, entry())
    mended = time.monotonic() + CUT_SECONDS
    while time.monotonic() < mended:
        assert gateway.chat()[0] == 200
        time.sleep(0.1)
    assert gateway.get("/readyz")[0] == 200
    assert f"after-{way}" not in gateway.models()
    if way == "refuse":
        until(lambda: part(gateway, "cluster").startswith("not followed"), "that it is said")
    gateway.wire.mend()
    seconds = until(lambda: f"after-{way}" in gateway.models(), "the change")
    print(f"after {way}: the change is in force {seconds:.1f} s after the API server is back")


def test_a_gateway_that_restarts_without_an_api_server_serves_what_it_knew(gateway: ClusterGateway) -> None:
    until(lambda: (gateway.state / "cluster/endpoints.json").exists(), "the saved endpoints")
    gateway.wire.refuse()
    gateway.stop()
    gateway.start()
    try:
        until(lambda: gateway.get("/readyz")[0] == 200, "ready from what was saved")
        assert gateway.chat()[0] == 200
    finally:
        gateway.wire.mend()


def test_a_model_that_fails_is_refused_with_the_reason(gateway: ClusterGateway, namespace: Kubectl) -> None:
    scale(namespace, 0)
    gateway.write(CONFIG, entry("Failed", detail="Its image can't be pulled: localhost/none:1."))
    until(lambda: gateway.models() == {"chat": "unavailable"}, "unavailable")
    status, error = gateway.chat()
    assert (status, error["error"]["code"]) == (503, "model_not_ready")
    assert "Its image can't be pulled: localhost/none:1." in error["error"]["message"]


def test_it_drains_on_sigterm(gateway: ClusterGateway, namespace: Kubectl) -> None:
    gateway.write(CONFIG, entry())
    scale(namespace, 1)
    until(lambda: gateway.models() == {"chat": "ready"}, "ready")
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=300)
    body = {"model": "chat", "stream": True, "max_tokens": 200, "ignore_eos": True}
    body["messages"] = [{"role": "user", "content": "hi"}]
    headers = {"authorization": "Bearer " + gateway._environ["QUARTERDECK_BOOTSTRAP_KEY"]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    response.readline()
    ending = threading.Thread(target=gateway.stop, daemon=True)
    ending.start()
    assert response.read().rstrip().endswith(b"data: [DONE]")
    connection.close()
    ending.join(300)
    assert not ending.is_alive()
