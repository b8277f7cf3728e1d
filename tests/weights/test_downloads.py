"""Weights from a hub on this machine, by real child processes."""

import asyncio
import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.hub import TOKEN, Hub, tiny_model
from tests.small_disk import SmallDisk

from quarterdeck.weights.downloads import Downloads
from quarterdeck.weights.errors import WeightsError
from quarterdeck.weights.progress import Progress

MIB = 1 << 20
LARGE = os.urandom(24 * MIB)
PATIENCE = 100


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub().running() as hub:
        yield hub


def downloads(hub: Hub, folder: Path, **variables: str) -> Downloads:
    mine = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "QUARTERDECK_"))
    }
    return Downloads({**mine, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), **variables}, folder / "cache")


async def test_a_model_is_downloaded_once_with_its_progress_and_without_duplicates(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add("org/model", tiny_model(LARGE))
    seen: list[Progress] = []
    mine = downloads(hub, tmp_path)
    assert mine.local("org/model") is None
    weights = await mine.fetch("org/model", None, seen.append)
    assert weights.revision == commit and weights.folder.name == commit
    assert (weights.folder / "model.safetensors").read_bytes() == LARGE
    assert sorted(path.name for path in weights.folder.iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "tokenizer.json")
    ]
    assert seen[0].total == 0 and seen[-1].percent == 100
    assert all(one.done <= other.done for one, other in pairwise(seen))
    asked = len(hub.requests)
    assert mine.local("org/model") == mine.local("org/model", commit) == weights
    assert len(hub.requests) == asked


async def test_a_killed_download_is_resumed_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/model", tiny_model(LARGE))
    hub.hold_after = 16 * MIB
    mine = downloads(hub, tmp_path)
    first = asyncio.create_task(mine.fetch("org/model"))
    await asyncio.to_thread(hub.is_held.wait, PATIENCE)
    (partial,) = (tmp_path / "hf").rglob("*.quarterdeck-partial")
    while partial.stat().st_size < 14 * MIB:  # noqa: ASYNC110  # of another process; its last pieces are on their way
        await asyncio.sleep(0.01)
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    with pytest.raises(WeightsError, match="ended with status -9"):
        await first
    kept = partial.stat().st_size
    hub.hold_after = None
    hub.go_on.set()
    sent = hub.sent
    seen: list[Progress] = []
    weights = await downloads(hub, tmp_path).fetch("org/model", None, seen.append)
    assert (weights.folder / "model.safetensors").read_bytes() == LARGE
    assert ("GET", f"/cdn/{partial.name.partition('.')[0]}", f"bytes={kept}-") in hub.requests
    assert next(each for each in seen if each.total).done >= kept
    assert hub.sent - sent <= len(LARGE) - kept + MIB
    assert not partial.exists()


async def test_a_cancelled_download_ends_its_process_and_keeps_what_it_has(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/model", tiny_model(LARGE))
    hub.hold_after = 12 * MIB
    mine = downloads(hub, tmp_path)
    first, second = asyncio.create_task(mine.fetch("org/model")), asyncio.create_task(mine.fetch("org/model"))
    await asyncio.to_thread(hub.is_held.wait, PATIENCE)
    assert len(children()) == 1 and list(mine.in_progress()) == ["org/model@main"]
    first.cancel()
    await asyncio.wait([first])
    assert len(children()) == 1  # the other one still waits for it
    second.cancel()
    await asyncio.wait([second])
    assert children() == [] and mine.in_progress() == {}
    assert list((tmp_path / "hf").rglob("*.quarterdeck-partial"))


async def test_a_gated_repository_is_explained_and_a_token_opens_it(hub: Hub, tmp_path: Path) -> None:
    hub.add("meta/gated", tiny_model(), is_gated=True)
    with pytest.raises(WeightsError, match=f"is gated: accept its terms at {hub.url}/meta/gated, then set") as error:
        await downloads(hub, tmp_path).fetch("meta/gated")
    assert error.value.code == "gated" and error.value.is_permanent
    assert (await downloads(hub, tmp_path, HF_TOKEN=TOKEN).fetch("meta/gated")).size > 0


@pytest.mark.parametrize(
    ("repository", "revision", "variables", "code", "words"),
    [
        ("org/nothing", None, {}, "repository_not_found", "There is no repository 'org/nothing' at "),
        ("org/nothing", None, {"HF_TOKEN": TOKEN}, "repository_not_found", "or the token has no access to it"),
        ("org/private", None, {}, "repository_not_found", "or it is private and HF_TOKEN is not set"),
        ("org/model", "v9", {}, "revision_not_found", "org/model has no revision 'v9'"),
        ("org/model", None, {"HF_TOKEN": "hf_wrong"}, "unauthorized", "refuses HF_TOKEN"),
        ("org/model", None, {"HF_HUB_OFFLINE": "1"}, "offline", "HF_HUB_OFFLINE forbids"),
        ("org/model", None, {"HF_ENDPOINT": "http://127.0.0.1:9"}, "hub_unreachable", "Can't reach http://127.0.0.1:9"),
        ("org/gguf", None, {}, "not_a_model", "can't be served: it has no config.json"),
        ("org/bare", None, {}, "not_a_model", "it has no weights in a format that vLLM reads"),
        ("a/b/c", None, {}, "repository_not_found", "'a/b/c' is not the name of a repository"),
        ("--help", None, {}, "repository_not_found", "'--help' is not the name of a repository"),
    ],
)
async def test_what_is_wrong_is_said_in_a_sentence(
    hub: Hub, tmp_path: Path, repository: str, revision: str | None, variables: dict[str, str], code: str, words: str
) -> None:
    hub.add("org/model", tiny_model())
    hub.add("org/private", tiny_model(), is_private=True)
    hub.add("org/gguf", {"model-q4.gguf": b"GGUF", "README.md": b""})
    hub.add("org/bare", {"config.json": b"{}", "model.gguf": b"GGUF"})
    with pytest.raises(WeightsError) as error:
        await downloads(hub, tmp_path, **variables).fetch(repository, revision)
    assert (error.value.code, words in str(error.value)) == (code, True), str(error.value)
    assert "\n" not in str(error.value) and "Traceback" not in str(error.value)


async def test_a_disk_too_small_is_said_before_anything_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/model", tiny_model(LARGE))
    disk = SmallDisk(tmp_path / "disk", kilobytes=16 * 1024)
    try:
        with pytest.raises(WeightsError, match=r"needs 25.2 MB more, and 15.9 MB can be used in .*Free some") as error:
            await downloads(hub, disk.folder).fetch("org/model")
        assert error.value.code == "disk_too_small" and not error.value.is_permanent
        assert hub.sent == 0
    finally:
        disk.close()


async def test_a_disk_that_fills_up_stops_the_download_and_it_is_resumed(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/model", tiny_model(LARGE))
    hub.hold_after = 8 * MIB
    disk = SmallDisk(tmp_path / "disk", kilobytes=40 * 1024)
    try:
        task = asyncio.create_task(downloads(hub, disk.folder).fetch("org/model"))
        await asyncio.to_thread(hub.is_held.wait, PATIENCE)
        await asyncio.to_thread(disk.fill, 4 * MIB)
        hub.go_on.set()
        with pytest.raises(WeightsError, match=r"stopped: only|No space left"):
            await task
        disk.free()
        sent = hub.sent
        weights = await downloads(hub, disk.folder).fetch("org/model")
        assert (weights.folder / "model.safetensors").read_bytes() == LARGE
        assert hub.sent - sent < 20 * MIB
    finally:
        disk.close()


async def test_a_branch_that_moves_does_not_change_what_is_here(hub: Hub, tmp_path: Path) -> None:
    first = hub.add("org/model", tiny_model(b"one"))
    mine = downloads(hub, tmp_path)
    await mine.fetch("org/model")
    second = hub.repositories["org/model"].commit(tiny_model(b"two"))
    assert (found := mine.local("org/model")) is not None and found.revision == first
    assert (await mine.fetch("org/model", first)).revision == first
    moved = await mine.fetch("org/model")
    assert moved.revision == second and (moved.folder / "model.safetensors").read_bytes() == b"two"
    assert (found.folder / "model.safetensors").read_bytes() == b"one"


async def test_a_damaged_file_is_not_put_in_place(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/model", tiny_model(LARGE))
    hub.damages = True
    with pytest.raises(WeightsError, match="arrived damaged"):
        await downloads(hub, tmp_path).fetch("org/model")
    hub.damages = False
    weights = await downloads(hub, tmp_path).fetch("org/model")
    assert (weights.folder / "model.safetensors").read_bytes() == LARGE


async def test_what_another_program_downloaded_is_found(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add("org/model", tiny_model())
    await downloads(hub, tmp_path).fetch("org/model")
    folder = tmp_path / "hf" / "hub" / "models--org--model"
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    other = Downloads({"HF_HOME": str(tmp_path / "hf")}, tmp_path / "another-cache")
    assert (found := other.local("org/model")) is not None and found.revision == commit
    (folder / "snapshots" / commit / "model.safetensors").unlink()
    assert other.local("org/model") is None


def children() -> list[int]:
    """Live download processes of this test."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        if b"quarterdeck.weights" in words and parent == os.getpid():
            found.append(int(entry.name))
    return found
