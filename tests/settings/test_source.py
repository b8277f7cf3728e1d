"""quarterdeck.yaml as a source of configurations: what counts as a change."""

import asyncio
import errno
import threading
import time
from pathlib import Path

import pytest

from quarterdeck.settings.config import Config
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.source import FileSource

GOOD = "models:\n  - name: {}\n    endpoints: [{{url: http://127.0.0.1:1}}]\n"


class Bench:
    """A file with a model called `one`, already read."""

    def __init__(self, path: Path, *, poll_seconds: float = 0.01) -> None:
        self.path = path
        self.write("one")
        self.source = FileSource(path, poll_seconds=poll_seconds)
        self.source.read()

    def write(self, name: str, more: str = "") -> None:
        self.path.write_text(GOOD.format(name) + more)

    def remove(self) -> None:
        self.path.unlink()

    def link_elsewhere(self, name: str) -> None:
        """How Kubernetes changes a ConfigMap's files."""
        other, link = self.path.with_name("other.yaml"), self.path.with_name("link")
        other.write_text(GOOD.format(name))
        link.symlink_to(other)
        link.rename(self.path)

    async def changed(self) -> str:
        """The name of the model."""
        return (await self.source.changed()).models[0].name


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "quarterdeck.yaml")


async def test_a_changed_file_is_read(bench: Bench) -> None:
    """Also where it changed before the first wait."""
    bench.write("other")
    assert await bench.changed() == "other"


async def test_a_file_that_did_not_change_is_not_read_again(bench: Bench) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.changed(), 0.1)


async def test_an_invalid_file_is_an_error_once_and_mended_by_the_next_change(bench: Bench) -> None:
    bench.write("one", "nonsense: 1\n")
    with pytest.raises(ConfigError, match=r"quarterdeck\.yaml:4"):
        await bench.changed()
    bench.write("mended")
    assert await bench.changed() == "mended"


async def test_a_file_that_is_removed_is_an_error(bench: Bench) -> None:
    bench.remove()
    with pytest.raises(ConfigError):
        await bench.changed()


async def test_a_link_that_points_elsewhere_is_a_change(bench: Bench) -> None:
    bench.link_elsewhere("two")
    assert await bench.changed() == "two"


async def test_a_refresh_reads_the_file_even_if_it_did_not_change(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "quarterdeck.yaml", poll_seconds=3600)
    bench.source.refresh()
    assert await bench.changed() == "one"


def test_a_read_that_does_not_end_keeps_no_process_from_exiting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SIGTERM must work while a file system does not answer."""
    reading, never = threading.Event(), threading.Event()

    def read() -> Config:
        reading.set()
        never.wait()
        raise ConfigError("too late")

    async def reload() -> None:
        monkeypatch.setattr(bench.source, "read", read)
        bench.write("other")
        changed = asyncio.create_task(bench.source.changed())
        await asyncio.to_thread(reading.wait)
        changed.cancel()
        await asyncio.gather(changed, return_exceptions=True)

    started = time.monotonic()
    asyncio.run(reload())  # waits for the threads of `asyncio.to_thread`
    assert time.monotonic() - started < 20
    never.set()


async def test_a_file_that_could_not_be_opened_for_lack_of_descriptors_is_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("quarterdeck.settings.loading.read_file", full)
        bench.write("other")
        with pytest.raises(ConfigError, match="Too many open files"):
            await bench.changed()
    assert await bench.changed() == "other"
