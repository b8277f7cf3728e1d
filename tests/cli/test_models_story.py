"""Models come and go, as a user's story on one platform that is never restarted.

A second model from a folder; a pull with progress, its resumption after a kill, a gated repository, a disk too small;
chats with both; a 4-bit variant beside; stop, start and removal. Meanwhile five streams a second run on the first
model, and none is lost. The hub is a server on this machine (`tests/hub.py`). On the simulator and on vLLM.
"""

import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.cli.running import Running, free_ports, running
from tests.hub import Hub, tiny_model
from tests.small_disk import SmallDisk

from quarterdeck.cli import credentials
from quarterdeck.settings.environment import Environment

QUARTERDECK = (sys.executable, "-m", "quarterdeck.cli")
FIRST = "smollm2-135m-instruct"
MIB = 1 << 20
PATIENCE = 120
ENGINE_PYTHON = Path(__file__).resolve().parents[2] / ".envs" / "engine" / "bin" / "python"


class Story:
    """A platform, the commands of its user, and the figures of each step."""

    def __init__(self, folder: Path, hub: Hub, engine: str) -> None:
        self.folder, self.hub, self.engine = folder, hub, engine
        ours = ("QUARTERDECK_", "OTEL_", "HF_", "OPENAI_")
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        ports = ("QUARTERDECK_PORT", "QUARTERDECK_WORKER_PORT", "QUARTERDECK_ENGINE_PORT")
        self.environ |= dict(zip(ports, map(str, free_ports(3)), strict=True))
        file = folder / "quarterdeck.yaml"
        file.write_text(f"models: [{{name: {FIRST}, engine: {{source: 'packaged:{FIRST}', context: 512}}}}]\n")
        self.environ |= {
            "QUARTERDECK_STATE": str(folder / "state"),
            "QUARTERDECK_CONFIG": str(file),
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hf"),
        }
        self.figures: list[tuple[str, float]] = []

    def say(self, *words: str, status: int = 0, **variables: str) -> str:
        """Run a command; its output."""
        began = time.monotonic()
        done = subprocess.run(
            [*QUARTERDECK, *words],
            env={**self.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        output = done.stdout + done.stderr
        assert done.returncode == status and "Traceback" not in output, (
            f"{words} ended with {done.returncode}:\n{output}"
        )
        self.figures.append((" ".join(words[:3]), time.monotonic() - began))
        return output

    def object(self, *words: str) -> Any:
        output = self.say(*words, "--json")
        return json.loads(output[output.index("{") :])

    def client(self) -> openai.OpenAI:
        user = credentials.read(self.folder / "state")
        return openai.OpenAI(base_url=user.base_url, api_key=user.api_key, max_retries=0, timeout=300)


class Streams:
    """Five streams a second on the first model, until the end of the story."""

    def __init__(self, client: openai.OpenAI) -> None:
        self._client = client
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.complete = 0
        self.lost: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        starter = threading.Thread(target=self._start)
        starter.start()
        try:
            yield
        finally:
            self._stop.set()
            starter.join()
            for thread in self._threads:
                thread.join(PATIENCE)

    def _start(self) -> None:
        while not self._stop.wait(0.2):
            thread = threading.Thread(target=self._stream)
            self._threads.append(thread)
            thread.start()

    def _stream(self) -> None:
        try:
            finish, words = None, 0
            stream = self._client.chat.completions.create(
                model=FIRST, messages=[{"role": "user", "content": "Count."}], max_tokens=12, stream=True
            )
            for chunk in stream:
                for choice in chunk.choices:
                    words += bool(choice.delta.content)
                    finish = choice.finish_reason or finish
            if finish is None or words == 0:
                self.lost.append(f"finish reason {finish}, {words} pieces")
            else:
                self.complete += 1
        except openai.APIError as error:
            self.lost.append(repr(error))


@pytest.fixture(params=["sim", "vllm"])
def story(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Story]:
    if request.param == "vllm" and not ENGINE_PYTHON.exists():
        pytest.skip("NOT TESTED: models on vLLM, because there is no engine environment")
    with Hub().running() as hub:
        yield Story(tmp_path, hub, request.param)


def model_files(engine: str) -> dict[str, bytes]:
    """Of a small model: a real one for vLLM."""
    if engine == "sim":
        return tiny_model(os.urandom(12 * MIB))
    folder = Environment.read().cache / "models" / FIRST
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
    }


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_models_come_and_go_while_another_serves(story: Story) -> None:
    with running([*QUARTERDECK, "up", "--engine", story.engine], story.environ, patience=600) as platform:
        platform.until("Press Ctrl-C to stop")
        streams = Streams(story.client())
        with streams.running():
            tell(story, platform)
        assert streams.lost == [] and streams.complete > 20
        for step, seconds in story.figures:
            print(f"{seconds:6.1f} s  {step}")
        print(f"{streams.complete} streams; {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6:.1f} GB")


def tell(story: Story, platform: Running) -> None:
    hub, client = story.hub, story.client()
    files = model_files(story.engine)
    folder = story.folder / "my-model"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)

    assert "second is ready" in story.say("models", "add", str(folder), "--name", "second", "--context", "512")
    assert answer(client, "second") and answer(client, FIRST)

    commit = hub.add("org/model", files)
    interrupted_pull(story)
    pulled = story.object("models", "pull", "org/model")
    assert pulled["revision"] == commit
    assert any(method == "GET" and sent for method, _, sent in hub.requests), "nothing was resumed"

    assert "third is ready" in story.say("models", "add", "org/model", "--name", "third", "--context", "512")
    shown = story.object("models", "show", "third")
    assert (shown["state"], shown["replicas"], shown["managed_by"]) == ("ready", 1, "api")

    hub.add("meta/gated", files, is_gated=True)
    refused = story.say("models", "add", "meta/gated", "--name", "gated", status=1)
    assert f"is gated: accept its terms at {hub.url}/meta/gated, then set HF_TOKEN" in refused
    assert "There is no repository 'org/nothing'" in story.say("models", "pull", "org/nothing", status=1)
    story.say("models", "remove", "gated")

    disk = SmallDisk(story.folder / "disk", kilobytes=8 * 1024)
    try:
        small = story.say("models", "pull", "org/model", status=1, HF_HOME=str(disk.folder))
        assert re.search(r"org/model needs .* more, and .* can be used in", small)
    finally:
        disk.close()

    words = ("models", "add", "org/model", "--name", "four-bit", "--quantization", "bitsandbytes", "--context", "512")
    assert "four-bit is ready" in story.say(*words)
    assert answer(client, "four-bit") and answer(client, "third")
    assert {"second", "third", "four-bit", FIRST} <= {model.id for model in client.models.list()}

    story.say("models", "stop", "third")
    with pytest.raises(openai.InternalServerError, match=r"stopped"):
        answer(client, "third")
    assert "third is ready" in story.say("models", "start", "third")
    for name in ("second", "third", "four-bit"):
        assert f"removed {name}" in story.say("models", "remove", name)
    assert [model.id for model in client.models.list()] == [FIRST]
    assert platform.process.poll() is None


def interrupted_pull(story: Story) -> None:
    """A pull that is killed on its way."""
    hub = story.hub
    hub.hold_after = hub.sent + 6 * MIB
    with subprocess.Popen(
        [*QUARTERDECK, "models", "pull", "org/model"],
        env=story.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as pull:
        assert hub.is_held.wait(PATIENCE)
        os.killpg(pull.pid, 9)
    hub.hold_after = None
    hub.go_on.set()


def answer(client: openai.OpenAI, model: str) -> str:
    found = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Say hello."}], max_tokens=12, temperature=0
    )
    return found.choices[0].message.content or ""
