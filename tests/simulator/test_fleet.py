"""`--follow-config`: simulated models come and go with the configuration, in a real process."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

SECONDS = 60.0
"""A busy machine takes ten times as long as an idle one."""


class Fleet:
    """A simulator that follows a file."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.write([])
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("QUARTERDECK_", "HF_"))}
        environ |= {"QUARTERDECK_CONFIG": str(folder / "q.yaml"), "QUARTERDECK_STATE": str(folder / "state")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "quarterdeck.simulator", "--port", "0", "--follow-config", *options],
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=SECONDS)

    def write(self, models: list[dict[str, Any]]) -> None:
        scratch = self.folder / "q.yaml.new"
        scratch.write_text(yaml.safe_dump({"models": models}))
        scratch.replace(self.folder / "q.yaml")

    def listing(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get("/endpoints").json()
        return found

    def states(self) -> dict[str, str]:
        return {each["name"]: each["state"] for each in self.listing()["models"]}

    def status(self, name: str) -> dict[str, Any]:
        return next((each for each in self.listing()["models"] if each["name"] == name), {})

    def url_of(self, name: str) -> str:
        return next(str(row["url"]) for row in self.listing()["endpoints"] if row["model"] == name and row["url"])

    def wait(self, ask: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not ask():
            assert time.monotonic() < deadline, self.listing()
            time.sleep(0.05)

    def stop(self) -> int:
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(SECONDS)


def model(name: str, **engine: Any) -> dict[str, Any]:
    args = {"load_duration": "300ms", **engine.pop("args", {})}
    return {"name": name, "engine": {"source": f"org/{name}", "args": args, **engine}}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    subject = Fleet(tmp_path, "--memory-gib", "4", "--drain-timeout", "5s")
    yield subject
    if subject.process.poll() is None:
        subject.stop()


def test_a_model_added_to_the_file_is_served_and_a_removed_one_is_gone(fleet: Fleet) -> None:
    assert fleet.listing() == {"endpoints": [], "models": []}
    fleet.write([model("a")])
    fleet.wait(lambda: fleet.states() == {"a": "ready"})
    fleet.write([model("a"), model("b", task="embed")])
    fleet.wait(lambda: fleet.states() == {"a": "ready", "b": "ready"})
    body = {"model": "b", "input": "x"}
    assert fleet.http.post(f"{fleet.url_of('b')}/v1/embeddings", json=body).status_code == 200
    fleet.write([model("a")])
    fleet.wait(lambda: fleet.states() == {"a": "ready"})
    assert {row["model"] for row in fleet.listing()["endpoints"]} == {"a"}


def test_a_start_shows_its_phases(fleet: Fleet) -> None:
    fleet.write([model("a", args={"load_duration": "3s"})])
    seen: list[str] = []

    def is_ready() -> bool:
        state = fleet.status("a").get("state", "")
        if state and state not in seen:
            seen.append(state)
        return state == "ready"

    fleet.wait(is_ready)
    order = ["preparing", "loading", "compiling", "warming_up", "ready"]
    assert seen == [state for state in order if state in seen]
    assert {"loading", "ready"} <= set(seen)


def test_a_failing_model_and_one_that_hangs_leave_the_others_alone(fleet: Fleet) -> None:
    fleet.write(
        [
            model("a"),
            model("bad", args={"fail_start": "damaged-weights"}),
            model("stuck", start_timeout_seconds=1, args={"fail_start": "hang"}),
            model("last"),
        ]
    )
    fleet.wait(lambda: fleet.states() == {"a": "ready", "bad": "failed", "stuck": "failed", "last": "ready"})
    assert "SafetensorError" in fleet.status("bad")["detail"]
    assert fleet.status("stuck")["reason"] == "start_timeout"
    before = fleet.url_of("a")
    fleet.write([model("a"), model("bad"), model("last")])
    fleet.wait(lambda: fleet.states() == {"a": "ready", "bad": "ready", "last": "ready"})
    assert fleet.url_of("a") == before


def test_a_model_that_does_not_fit_starts_when_another_was_removed(fleet: Fleet) -> None:
    fleet.write([model("a", kv_cache_gib=3)])
    fleet.wait(lambda: fleet.states() == {"a": "ready"})
    fleet.write([model("a", kv_cache_gib=3), model("b", kv_cache_gib=2)])
    # In one reading: a failed model is tried again, and says so.
    reason = {"state": "failed", "detail": "does not fit: needs 2.1 GB of memory, 1.1 GB free"}
    fleet.wait(lambda: fleet.status("b").items() >= reason.items())
    fleet.write([model("b", kv_cache_gib=2)])
    fleet.wait(lambda: fleet.states() == {"b": "ready"})


async def test_a_stream_goes_on_while_its_model_is_replaced_and_others_come_and_go(fleet: Fleet) -> None:
    fleet.write([model("a", args={"inter_token_latency": "50ms"})])
    await asyncio.to_thread(fleet.wait, lambda: fleet.states() == {"a": "ready"})
    url = fleet.url_of("a")
    body = {"model": "a", "messages": [{"role": "user", "content": "go"}], "stream": True}
    body |= {"max_tokens": 60, "min_tokens": 60, "ignore_eos": True}
    words = 0
    async with (
        httpx.AsyncClient(trust_env=False, timeout=SECONDS) as client,
        client.stream("POST", f"{url}/v1/chat/completions", json=body) as response,
    ):
        async for line in response.aiter_lines():
            if words == 3:
                fleet.write([model("a", context=2048, args={"inter_token_latency": "50ms"}), model("b")])
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                words += 1
    assert words == 60
    await asyncio.to_thread(fleet.wait, lambda: fleet.states() == {"a": "ready", "b": "ready"})
    await asyncio.to_thread(fleet.wait, lambda: len(fleet.listing()["endpoints"]) == 2)
    assert fleet.url_of("a") != url


def test_an_invalid_file_and_one_that_is_repaired_again(fleet: Fleet) -> None:
    fleet.write([model("a")])
    fleet.wait(lambda: fleet.states() == {"a": "ready"})
    (fleet.folder / "q.yaml").write_text("models: [")
    time.sleep(1.5)  # what must not happen has no event
    assert fleet.states() == {"a": "ready"}
    fleet.write([model("a"), model("b")])
    fleet.wait(lambda: fleet.states() == {"a": "ready", "b": "ready"})


def test_models_added_beside_the_file_and_adapters_are_followed(fleet: Fleet) -> None:
    fleet.write([model("a", max_adapters=2)])
    fleet.wait(lambda: fleet.states() == {"a": "ready"})
    folder = fleet.folder / "state" / "models.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "b.yaml").write_text(yaml.safe_dump(model("b")))
    fleet.wait(lambda: fleet.states() == {"a": "ready", "b": "ready"})
    fleet.write([model("a", max_adapters=2, adapters=[{"name": "pirate", "source": "/nowhere"}])])
    fleet.wait(lambda: any("pirate" in row["adapters"] for row in fleet.listing()["endpoints"]))
    url = fleet.url_of("a")
    body = {"model": "pirate", "messages": [{"role": "user", "content": "go"}], "max_tokens": 2}
    assert fleet.http.post(f"{url}/v1/chat/completions", json=body).status_code == 200
    fleet.write([model("a", max_adapters=2)])
    fleet.wait(lambda: not any(row["adapters"] for row in fleet.listing()["endpoints"]))


def test_a_retry_tries_a_failed_model_now_and_sigterm_ends_it_in_order(fleet: Fleet) -> None:
    fleet.write([model("a/b", args={"fail_start": "crash"})])
    fleet.wait(lambda: fleet.states() == {"a/b": "failed"})
    assert fleet.http.post("/models/a%2Fb/retry").json() == {"name": "a/b", "was_failed": True}
    fleet.wait(lambda: fleet.states() == {"a/b": "failed"} and fleet.status("a/b")["retry_seconds"] > 0)
    assert fleet.http.post("/models/nothing/retry").json()["was_failed"] is False
    assert fleet.stop() == 0
