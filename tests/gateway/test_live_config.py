"""A changed quarterdeck.yaml: a good one takes over, a bad one is refused and said."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.gateway import live_config
from quarterdeck.gateway.live_config import ConfigFile
from quarterdeck.settings.config import Config

GOOD = "models:\n  - name: {}\n    endpoints: [{{url: http://127.0.0.1:1}}]\n"


class Bench:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.adopted: list[Config] = []
        self.outcomes: list[str] = []
        self.happened = asyncio.Event()
        self.subject = ConfigFile(path, self.adopted.append, self._note)

    def _note(self, outcome: str) -> None:
        self.outcomes.append(outcome)
        self.happened.set()

    async def outcome(self) -> str:
        """Wait for the next one."""
        await self.happened.wait()
        self.happened.clear()
        await asyncio.sleep(0)
        return self.outcomes[-1]


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(live_config, "LOOK_SECONDS", 0.01)
    path = tmp_path / "quarterdeck.yaml"
    path.write_text(GOOD.format("one"))
    made = Bench(path)
    task = asyncio.create_task(made.subject.run())
    yield made
    task.cancel()


async def test_a_changed_file_takes_over(bench: Bench) -> None:
    bench.path.write_text(GOOD.format("other"))
    assert await bench.outcome() == "applied"
    assert bench.adopted[-1].models[0].name == "other"
    assert bench.subject.error is None


async def test_a_bad_file_is_refused_with_its_line_until_it_is_mended(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.path.write_text(GOOD.format("one") + "nonsense: 1\n")
    assert await bench.outcome() == "refused"
    assert bench.adopted == []
    assert bench.subject.error is not None
    assert "quarterdeck.yaml:4" in bench.subject.error
    assert "quarterdeck.yaml:4" in caplog.text
    bench.path.write_text(GOOD.format("mended"))
    assert await bench.outcome() == "applied"
    assert bench.subject.error is None


async def test_a_file_that_is_gone_is_refused_and_nothing_changes(bench: Bench) -> None:
    bench.path.unlink()
    assert await bench.outcome() == "refused"
    assert bench.adopted == []


async def test_a_link_that_points_elsewhere_is_a_change(bench: Bench) -> None:
    """How Kubernetes changes a ConfigMap's files."""
    other = bench.path.with_name("other.yaml")
    other.write_text(GOOD.format("two"))
    link = bench.path.with_name("link")
    link.symlink_to(other)
    link.rename(bench.path)
    assert await bench.outcome() == "applied"
    assert bench.adopted[-1].models[0].name == "two"


async def test_a_signal_reads_the_file_even_if_it_did_not_change(bench: Bench) -> None:
    bench.subject.reload()
    assert await bench.outcome() == "applied"
