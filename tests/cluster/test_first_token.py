"""How long a new user waits: from `helm install` to the first token of a simulated engine, and where the time goes."""

import json
import time
from collections.abc import Callable
from datetime import datetime

import httpx
from tests.cluster.kubectl import Kubectl, Object, condition_of
from tests.cluster.release import CHECKOUT, Release

SECONDS = 600
"""Until the test gives up. The project promises 45 s on two cores of its own; what it took is reported."""


def test_helm_install_to_the_first_token(
    make_release: Callable[..., Release],
    make_namespace: Callable[..., Kubectl],
    record_property: Callable[[str, object], None],
) -> None:
    namespace = make_namespace("first-token")
    release = make_release(namespace=namespace, install=False)
    begun = time.time()
    release.install(wait=False)
    installed = time.time() - begun
    release.apply_model("hello")
    key = release.admin_key
    failures: list[str] = []
    body = {"model": "hello", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "max_tokens": 4}
    with httpx.Client(base_url=release.url, headers={"authorization": f"Bearer {key}"}, timeout=300) as client:
        while not (token := first_token(client, body, failures)):
            assert time.time() - begun < SECONDS, failures[-3:]
            time.sleep(0.1)
    elapsed = time.time() - begun
    assert token.startswith("data: ")
    times = {"helm install": round(installed, 1), **timeline(namespace, begun), "first token": round(elapsed, 1)}
    print(json.dumps(times, indent=1))
    folder = CHECKOUT / "build"
    folder.mkdir(exist_ok=True)
    (folder / "first-token.json").write_text(json.dumps(times, indent=1) + "\n")
    record_property("seconds", elapsed)


def first_token(client: httpx.Client, body: Object, failures: list[str]) -> str:
    """The first event of a stream, or nothing."""
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code == 200:
                return next((line for line in response.iter_lines() if line.startswith("data: ")), "")
            failures.append(f"{response.status_code} {response.read().decode()}")
    except httpx.HTTPError as error:
        failures.append(repr(error))
    return ""


def timeline(namespace: Kubectl, begun: float) -> dict[str, float]:
    """When pods were scheduled, started and ready, in seconds since the beginning."""
    found: dict[str, float] = {}
    for pod in namespace.select("pods", "app.kubernetes.io/part-of=quarterdeck"):
        name = pod["metadata"]["labels"].get("app.kubernetes.io/component", "engine")
        started = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        for what, at in (
            ("created", pod["metadata"]["creationTimestamp"]),
            ("started", started),
            ("ready", (condition_of(pod, "Ready") or {}).get("lastTransitionTime")),
        ):
            if at:
                found[f"{name} {what}"] = round(datetime.fromisoformat(at).timestamp() - begun, 1)
    return found
