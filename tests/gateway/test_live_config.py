"""A changed configuration: a valid one is applied, an invalid one is refused and reported."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.gateway.live_config import ConfigReloader
from quarterdeck.settings.config import Config
from quarterdeck.settings.source import FileSource

GOOD = "models:\n  - name: {}\n    endpoints: [{{url: http://127.0.0.1:1}}]\n"


class Bench:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.applied: list[Config] = []
        self.outcomes: list[str] = []
        self.happened = asyncio.Event()
        source = FileSource(path, poll_seconds=0.01)
        self.subject = ConfigReloader(source, source.read(), self.applied.append, self._note)

    def _note(self, outcome: str) -> None:
        self.outcomes.append(outcome)
        self.happened.set()

    async def outcome(self) -> str:
        """Wait for the next outcome."""
        await self.happened.wait()
        self.happened.clear()
        await asyncio.sleep(0)
        return self.outcomes[-1]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    path = tmp_path / "quarterdeck.yaml"
    path.write_text(GOOD.format("one"))
    made = Bench(path)
    task = asyncio.create_task(made.subject.run())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_changed_file_takes_over(bench: Bench) -> None:
    bench.path.write_text(GOOD.format("other"))
    assert await bench.outcome() == "applied"
    assert bench.applied[-1].models[0].name == "other"
    assert bench.subject.error is None


async def test_a_bad_file_is_refused_with_its_line_until_it_is_mended(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.path.write_text(GOOD.format("one") + "nonsense: 1\n")
    assert await bench.outcome() == "refused"
    assert bench.applied == []
    assert bench.subject.error is not None
    assert "quarterdeck.yaml:4" in bench.subject.error
    assert "quarterdeck.yaml:4" in caplog.text
    bench.path.write_text(GOOD.format("mended"))
    assert await bench.outcome() == "applied"
    assert bench.subject.error is None


async def test_a_file_that_is_removed_is_refused_and_nothing_changes(bench: Bench) -> None:
    bench.path.unlink()
    assert await bench.outcome() == "refused"
    assert bench.applied == []


async def test_a_signal_reads_the_file_even_if_it_did_not_change(bench: Bench) -> None:
    bench.subject.reload()
    assert await bench.outcome() == "applied"


async def test_a_setting_that_needs_a_restart_is_logged_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    line = "setting telemetry.sinks changed; needs a restart of the worker"
    sinks = "telemetry: {sinks: [{name: one, url: 'http://127.0.0.1:4318/v1/traces'}]}\n"
    bench.path.write_text(GOOD.format("one") + sinks)
    assert await bench.outcome() == "applied"
    assert caplog.messages.count(line) == 1
    bench.path.write_text(GOOD.format("one") + sinks + "limits: {max_tokens: 5}\n")
    assert await bench.outcome() == "applied"
    assert caplog.messages.count(line) == 1


async def test_a_part_that_refuses_a_configuration_keeps_the_gateway_as_it_was(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever its error is: none may end the gateway, or leave half of a file in force."""
    apply = bench.subject._apply

    def refuse_other(config: Config) -> None:
        apply(config)
        if config.models[0].name == "other":
            raise ValueError("embedded null byte")

    bench.subject._apply = refuse_other
    bench.path.write_text(GOOD.format("other"))
    assert await bench.outcome() == "refused"
    assert bench.subject.error == "embedded null byte"
    assert [config.models[0].name for config in bench.applied] == ["other", "one"]
    bench.path.write_text(GOOD.format("third"))
    assert await bench.outcome() == "applied"
    assert bench.subject.error is None and bench.applied[-1].models[0].name == "third"


async def test_a_pipe_in_place_of_the_file_is_refused(bench: Bench) -> None:
    bench.path.unlink()
    os.mkfifo(bench.path)
    assert await bench.outcome() == "refused"
    assert "not a regular file" in (bench.subject.error or "")
