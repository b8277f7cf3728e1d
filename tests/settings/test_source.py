"""quarterdeck.yaml as a source of configurations: what counts as a change."""

import asyncio
from pathlib import Path

import pytest

from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.source import FileSource

GOOD = "models:\n  - name: {}\n    endpoints: [{{url: http://127.0.0.1:1}}]\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "quarterdeck.yaml"
    made.write_text(GOOD.format("one"))
    return made


@pytest.fixture
def source(path: Path) -> FileSource:
    made = FileSource(path, poll_seconds=0.01)
    assert made.read().models[0].name == "one"
    return made


async def test_a_changed_file_is_read(path: Path, source: FileSource) -> None:
    path.write_text(GOOD.format("other"))
    assert (await source.changed()).models[0].name == "other"


async def test_a_file_that_did_not_change_is_not_read_again(source: FileSource) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(source.changed(), 0.1)


async def test_a_change_before_the_first_wait_is_seen(path: Path, source: FileSource) -> None:
    """The file changed after the process had read it and before it followed it."""
    path.write_text(GOOD.format("early"))
    await asyncio.sleep(0)
    assert (await source.changed()).models[0].name == "early"


async def test_an_invalid_file_is_an_error_once_and_mended_by_the_next_change(path: Path, source: FileSource) -> None:
    path.write_text(GOOD.format("one") + "nonsense: 1\n")
    with pytest.raises(ConfigError, match="quarterdeck.yaml:4"):
        await source.changed()
    path.write_text(GOOD.format("mended"))
    assert (await source.changed()).models[0].name == "mended"


async def test_a_file_that_is_removed_is_an_error(path: Path, source: FileSource) -> None:
    path.unlink()
    with pytest.raises(ConfigError):
        await source.changed()


async def test_a_link_that_points_elsewhere_is_a_change(path: Path, source: FileSource) -> None:
    """How Kubernetes changes a ConfigMap's files."""
    other = path.with_name("other.yaml")
    other.write_text(GOOD.format("two"))
    link = path.with_name("link")
    link.symlink_to(other)
    link.rename(path)
    assert (await source.changed()).models[0].name == "two"


async def test_a_refresh_reads_the_file_even_if_it_did_not_change(path: Path) -> None:
    source = FileSource(path, poll_seconds=3600)
    source.read()
    source.refresh()
    assert (await source.changed()).models[0].name == "one"
