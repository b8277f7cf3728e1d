"""Models of a platform elsewhere: a pull is followed over HTTP, outlives its engine, and can be cancelled."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
from tests.cli.running import Running, free_ports, running
from tests.engine.lora import write_adapter
from tests.hub import Hub, tiny_model

from quarterdeck import processes
from quarterdeck.cli import credentials

QUARTERDECK = (sys.executable, "-m", "quarterdeck.cli")
MIB = 1 << 20
PATIENCE = 240


@dataclass(frozen=True)
class Far:
    """A platform, and the environment of a user on another machine."""

    hub: Hub
    platform: Running
    environ: dict[str, str]
    base: tuple[str, ...]
    api_key: str

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*QUARTERDECK, *self.base, *words],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def say(self, *words: str, status: int = 0) -> str:
        return self.end(self.start(*words), status)

    def end(self, process: "subprocess.Popen[str]", status: int = 0) -> str:
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == status and "Traceback" not in output, output
        return output

    def kill_engine(self) -> None:
        """End the simulated engine, and wait for the end of the process in which it downloads."""
        engine, download = self._pid("quarterdeck.simulator"), self._pid("quarterdeck.weights")
        os.kill(engine, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while download in {each.pid for each in processes.process_table().values() if each.is_alive}:
            assert time.monotonic() < deadline, "the download goes on without its engine"
            time.sleep(0.05)

    def until_it_answers(self, client: openai.OpenAI, model: str) -> None:
        """Wait until a model answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=1)
                return
            except openai.APIStatusError as error:
                assert time.monotonic() < deadline, error
                time.sleep(0.2)

    def _pid(self, module: str) -> int:
        for each in processes.descendants(self.platform.process.pid):
            if module.encode() in Path(f"/proc/{each.pid}/cmdline").read_bytes().split(b"\0"):
                return each.pid
        raise AssertionError(f"no {module} runs")


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    ours = ("QUARTERDECK_", "OTEL_", "HF_", "OPENAI_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    ports = ("QUARTERDECK_PORT", "QUARTERDECK_WORKER_PORT", "QUARTERDECK_ENGINE_PORT")
    (tmp_path / "quarterdeck.yaml").write_text("models: [{name: first, engine: {source: 'packaged:first'}}]\n")
    with Hub().running() as hub:
        platform = environ | dict(zip(ports, map(str, free_ports(3)), strict=True))
        platform |= {
            "QUARTERDECK_STATE": str(tmp_path / "state"),
            "QUARTERDECK_CONFIG": str(tmp_path / "quarterdeck.yaml"),
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
        }
        elsewhere = {"QUARTERDECK_STATE": str(tmp_path / "elsewhere"), "HOME": str(tmp_path / "home")}
        with running([*QUARTERDECK, "up", "--engine", "sim"], platform, patience=PATIENCE) as up:
            up.until("Press Ctrl-C to stop")
            user = credentials.read(tmp_path / "state")
            yield Far(hub, up, environ | elsewhere, ("--url", user.gateway_url, "--key", user.admin_key), user.api_key)


def hold(hub: Hub) -> None:
    """Transfers stop after two MiB."""
    hub.is_held.clear()
    hub.go_on = threading.Event()
    hub.hold_after = hub.sent + 2 * MIB


def release(hub: Hub) -> None:
    hub.hold_after = None
    hub.go_on.set()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_pull_elsewhere_outlives_its_engine_and_can_be_cancelled(far: Far) -> None:
    hub = far.hub
    commit = hub.add("org/model", tiny_model(os.urandom(12 * MIB)))
    hold(hub)
    pull = far.start("models", "pull", "org/model")
    assert hub.is_held.wait(PATIENCE)
    far.kill_engine()
    release(hub)
    output = far.end(pull)
    assert f"revision {commit}" in output
    assert any(method == "GET" and sent for method, _, sent in hub.requests), "nothing was resumed"

    hub.add("org/other", tiny_model(os.urandom(12 * MIB)))
    hold(hub)
    pull = far.start("models", "pull", "org/other")
    assert hub.is_held.wait(PATIENCE)
    assert "cancelled the download of org/other" in far.say("models", "pull", "org/other", "--cancel")
    assert "was cancelled" in far.end(pull, status=1)
    assert "no download of org/other is running" in far.say("models", "pull", "org/other", "--cancel", status=1)
    release(hub)
    assert "org/other: " in far.say("models", "pull", "org/other")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_adapter_of_a_model_elsewhere_is_added_used_and_removed(far: Far, tmp_path: Path) -> None:
    far.hub.add("org/model", tiny_model(os.urandom(MIB)))
    assert "second is ready" in far.say("models", "add", "org/model", "--name", "second", "--max-adapters", "2")
    adapter = write_adapter(tmp_path / "state" / "adapters" / "pirate")
    assert "added pirate to second" in far.say("models", "adapters", "add", "second", str(adapter))
    with openai.OpenAI(base_url=f"{far.base[1]}/v1", api_key=far.api_key, max_retries=0, timeout=PATIENCE) as client:
        far.until_it_answers(client, "pirate")
        answer = client.chat.completions.create(model="pirate", messages=[{"role": "user", "content": "Hi"}])
        assert answer.choices[0].message.content
        assert "pirate" in far.say("models", "adapters", "list", "second")
        far.say("models", "adapters", "remove", "pirate")
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="pirate", messages=[{"role": "user", "content": "Hi"}])
        assert client.chat.completions.create(model="second", messages=[{"role": "user", "content": "Hi"}]).choices
