"""Checks that a stream resumed after losing its engine ends with the same text: two bare vLLM servers, one killed.

    .envs/core/bin/python loadtests/resume.py          # about ten minutes on two cores; 50 prompts at temperature 0

First an engine answers every prompt alone, as reference. Then the prompts go through the gateway, several at once; one
engine is killed (-9) mid-stream and restarted, alternating between the two, until each prompt has lost its engine once.
Text, finish reason and usage are compared. Streams that kept their engine are the control: differences there come from
batching, which changes the order of vLLM's sums. Exits with status 1 if fewer than 99 % of the resumed texts are equal.

Requires the packaged chat model and the engine environment (both created by `make run`).
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import openai
from openai import AsyncOpenAI

ROOT = Path(__file__).resolve().parents[1]
ENGINE = ROOT / ".envs" / "engine" / "bin" / "python"
MODEL = "smollm2-135m-instruct"
TOPICS = """the sea; a lighthouse; bread; the moon; a small village; winter; a railway station; bees; the number seven;
rain; an old clock; mountains; a library; chess; a lost key; the desert; coffee; a garden; bicycles; the first snow;
a market; horses; the colour blue; a bridge; sleep; a violin; maps; a ferry; apples; a thunderstorm"""
TASKS = [
    *(f"Write a paragraph about {topic.strip()}." for topic in TOPICS.split(";")),
    *(f"List ten facts about {what}, numbered." for what in ("cats", "Rome", "iron", "the heart", "trees")),
    *(f"Write a Python function that {what}." for what in ("sorts a list", "counts words", "reverses a string")),
    *(
        f"Translate into French and explain: '{what}'"
        for what in ("Good morning", "Where is the station?", "Thank you")
    ),
    "Write a short poem with four lines and an empty line between them.",
    "Tell a story with the emojis 🐉, 🏰 and 👑 in it.",
    "Write the numbers from 1 to 60, separated by commas.",
    "Erkläre auf Deutsch, was ein Gewitter ist.",
    "Écris une phrase sur l'été à Paris, puis une autre sur Noël.",
    "Make a table of three planets in Markdown.",
    "What is the difference between a violin and a viola?",
    "Give me a recipe for soup, step by step.",
    "Write a letter to a friend.",
]
assert len(TASKS) == 50, len(TASKS)


class Engine:
    """A bare vLLM server on one core."""

    def __init__(self, folder: Path, name: str, core: int, model: Path) -> None:
        self.port = free_port()
        self.log = folder / f"{name}.log"
        self._core = core
        self._model = model
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        flags = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--enable-prompt-tokens-details"]
        flags += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [ENGINE, "-m", "vllm.entrypoints.openai.api_server", "--model", self._model, *flags],
                env=os.environ
                | {
                    "VLLM_CPU_OMP_THREADS_BIND": str(self._core),
                    "VLLM_CPU_KVCACHE_SPACE": "1",
                    "HF_HUB_OFFLINE": "1",
                    "VLLM_NO_USAGE_STATS": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill the server and its engine core immediately."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    async def ready(self) -> None:
        for _ in range(600):
            assert self._process is not None
            if self._process.poll() is not None:
                raise SystemExit(f"vLLM ended:\n{self.log.read_text(errors='replace')[-3000:]}")
            if is_up(self.url + "/health"):
                return
            await asyncio.sleep(0.5)
        raise SystemExit(f"{self.url} does not come up")

    def answered(self) -> float:
        """Finished requests, as counted by the server."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=5) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:request_success_total{"))


class Gateway:
    """`quarterdeck up` with only these two endpoints."""

    def __init__(self, folder: Path, engines: list[Engine]) -> None:
        self.port = free_port()
        self.state = folder / "state"
        self._config = folder / "quarterdeck.yaml"
        endpoints = ", ".join(f'{{url: "{engine.url}"}}' for engine in engines)
        self._config.write_text(f"models:\n  - name: {MODEL}\n    endpoints: [{endpoints}]\n")
        self._log = folder / "up.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "quarterdeck.cli", "up", "--engine", "none", "--port", str(self.port)],
                env=os.environ
                | {
                    "QUARTERDECK_STATE": str(self.state),
                    "QUARTERDECK_CONFIG": str(self._config),
                    "QUARTERDECK_WORKER_PORT": str(free_port()),
                },
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
            self._process = None

    async def ready(self) -> None:
        for _ in range(120):
            if is_up(f"http://127.0.0.1:{self.port}/readyz"):
                return
            await asyncio.sleep(0.5)
        raise SystemExit(f"the gateway does not come up:\n{self._log.read_text()[-3000:]}")

    def client(self) -> AsyncOpenAI:
        lines = (self.state / "credentials").read_text().splitlines()
        key = next(line for line in lines if line.startswith("api_key")).partition("=")[2].strip().strip('"')
        return AsyncOpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=key, max_retries=0, timeout=300)

    async def row(self, request_id: str) -> dict[str, Any]:
        """Wait for the worker to insert the ledger row, and return it."""
        for _ in range(300):
            with contextlib.closing(sqlite3.connect(self.state / "quarterdeck.db")) as database:
                database.row_factory = sqlite3.Row
                if found := database.execute("select * from ledger where id = ?", (request_id,)).fetchone():
                    return dict(found)
            await asyncio.sleep(0.1)
        raise SystemExit(f"no row of {request_id}")


@dataclass
class Answer:
    """The result of one stream."""

    text: str = ""
    finish: str | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    ids: set[str] = field(default_factory=set)
    request_id: str = ""
    error: str = ""

    def same(self, other: "Answer") -> bool:
        return (self.text, self.finish) == (other.text, other.finish)

    def counts(self) -> tuple[int, int]:
        return self.prompt_tokens, self.output_tokens


async def ask(client: AsyncOpenAI, task: str, tokens: int, seen: list[int]) -> Answer:
    answer = Answer()
    try:
        raw = await client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": task}],
            temperature=0,
            max_tokens=tokens,
            stream=True,
            stream_options={"include_usage": True},
        )
        answer.request_id = raw.headers.get("x-request-id", "")
        async for chunk in raw.parse():
            answer.ids.add(chunk.id)
            if chunk.usage:
                answer.prompt_tokens, answer.output_tokens = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
            for choice in chunk.choices:
                answer.text += choice.delta.content or ""
                answer.finish = choice.finish_reason or answer.finish
                seen[0] += 1
    except openai.APIError as error:
        answer.error = str(error)
    return answer


async def references(engines: list[Engine], tokens: int, at_once: int) -> dict[str, Answer]:
    """Run each prompt directly on one of the two engines."""

    async def half(engine: Engine, tasks: list[str]) -> dict[str, Answer]:
        free = asyncio.Semaphore(at_once)

        async def one(task: str) -> Answer:
            async with free:
                return await ask(client, task, tokens, [0])

        async with AsyncOpenAI(base_url=engine.url + "/v1", api_key="none", timeout=300) as client:
            return dict(zip(tasks, await asyncio.gather(*map(one, tasks)), strict=True))

    halves = await asyncio.gather(*[half(engine, TASKS[n::2]) for n, engine in enumerate(engines)])
    return {task: answer for each in halves for task, answer in each.items()}


async def one_round(
    gateway: Gateway, client: AsyncOpenAI, victim: Engine, tasks: list[str], tokens: int
) -> dict[str, tuple[Answer, int]]:
    """Run concurrent streams and kill an engine after a third of their tokens. Returns answers and resume counts."""
    seen = [0]
    streams = [asyncio.create_task(ask(client, task, tokens, seen)) for task in tasks]
    while seen[0] < len(tasks) * tokens / 3 and not all(stream.done() for stream in streams):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    victim.kill()
    answers = await asyncio.gather(*streams)
    rows = [await gateway.row(answer.request_id) for answer in answers if answer.request_id]
    resumed = {row["id"]: row["resumed"] for row in rows}
    return {task: (answer, resumed.get(answer.request_id, 0)) for task, answer in zip(tasks, answers, strict=True)}


async def run(arguments: argparse.Namespace, folder: Path) -> int:
    engines = [Engine(folder, name, core, arguments.model) for core, name in enumerate(("one", "two"))]
    gateway = Gateway(folder, engines)
    started = time.monotonic()
    try:
        for engine in engines:
            engine.start()
        gateway.start()
        await asyncio.gather(*[engine.ready() for engine in engines], gateway.ready())
        say(started, "two vLLM servers and the gateway are up")
        expected = await references(engines, arguments.tokens, arguments.references_at_once)
        say(started, f"{len(expected)} references")
        resumed: dict[str, Answer] = {}
        control: list[tuple[str, Answer]] = []
        for turn in range(arguments.rounds):
            tasks = [task for task in expected if task not in resumed][: arguments.at_once]
            if not tasks:
                break
            victim = engines[turn % 2]
            async with gateway.client() as client:
                found = await one_round(gateway, client, victim, tasks, arguments.tokens)
            for task, (answer, times) in found.items():
                if times:
                    resumed[task] = answer
                else:
                    control.append((task, answer))
            same = sum(answer.same(expected[task]) for task, answer in resumed.items())
            kept = sum(answer.same(expected[task]) for task, answer in control)
            say(
                started,
                f"round {turn + 1}: {len(resumed)} prompts have lost their engine, {same} texts are equal; "
                f"{kept} of {len(control)} that kept it",
            )
            if len(resumed) < len(expected):
                victim.start()
                gateway.stop()  # a new one doesn't remember whom it has seen fail
                gateway.start()
                await asyncio.gather(victim.ready(), gateway.ready())
        return report(expected, resumed, control, folder)
    finally:
        gateway.stop()
        for engine in engines:
            engine.kill()


def report(
    expected: dict[str, Answer], resumed: dict[str, Answer], control: list[tuple[str, Answer]], folder: Path
) -> int:
    for task, answer in resumed.items():
        if not answer.same(expected[task]) or answer.error:
            print(f"\n--- {task}\n    {expected[task].text!r}\n    {answer.text!r} {answer.error}")
    same = sum(answer.same(expected[task]) for task, answer in resumed.items())
    counted = sum(answer.counts() == expected[task].counts() for task, answer in resumed.items())
    one_id = sum(len(answer.ids) == 1 for answer in resumed.values())
    kept = sum(answer.same(expected[task]) for task, answer in control)
    share = same / len(resumed) if resumed else 0.0
    print(
        f"\nresumed: {same} of {len(resumed)} texts equal ({share:.1%}), {counted} usages equal, {one_id} with one id"
    )
    print(f"control (kept their engine, same batch): {kept} of {len(control)} texts equal")
    rows = {task: {"expected": asdict(expected[task]), "resumed": asdict(answer)} for task, answer in resumed.items()}
    (folder / "answers.json").write_text(json.dumps(rows, default=list, ensure_ascii=False, indent=1))
    print(f"all answers: {folder / 'answers.json'}")
    return 0 if share >= 0.99 else 1


def say(started: float, what: str) -> None:
    print(f"{time.monotonic() - started:5.0f} s  {what}", flush=True)


def is_up(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("QUARTERDECK_CACHE", Path.home() / ".cache" / "quarterdeck"))
    parser.add_argument("--model", type=Path, default=cache / "models" / MODEL)
    parser.add_argument("--tokens", type=int, default=96, help="maximum tokens per answer")
    parser.add_argument("--at-once", type=int, default=26)
    parser.add_argument(
        "--references-at-once", type=int, default=1, help="concurrent references per engine; 1: no batching effects"
    )
    parser.add_argument("--rounds", type=int, default=12, help="maximum number of rounds")
    parser.add_argument("--folder", type=Path, help="folder for logs and answers; default: a temporary one")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="resume-"))
    folder.mkdir(parents=True, exist_ok=True)
    return asyncio.run(run(arguments, folder))


if __name__ == "__main__":
    sys.exit(main())
