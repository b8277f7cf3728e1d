"""The configuration follows its ConfigMap; what is invalid, absent or out of reach takes nothing away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.kube.api_server import ApiServer
from tests.net.upstream import until

from quarterdeck.kube.api import KubeApi
from quarterdeck.kube.compiled import Documents, to_config_map
from quarterdeck.kube.config_source import ConfigMapSource
from quarterdeck.settings.config import Config
from quarterdeck.settings.loading import ConfigError

PATH = "/api/v1/namespaces/ns/configmaps"
ENGINES = '{"engines": {"chat": {"object": "chat", "model": "chat", "state": "%s"}}}'


def text(*names: str) -> str:
    return f"models: [{', '.join(f'{{name: {name}, engine: {{source: ./x}}}}' for name in names)}]"


class Following:
    """A source whose folders may have copies."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server = server
        self.mounted, self.saved = folder / "mounted", folder / "state" / "saved.json"
        self.mounted.mkdir(exist_ok=True)
        self.api = KubeApi(server.access())
        self.source = ConfigMapSource(self.api, "config", mounted=self.mounted, saved=self.saved)
        self.task: asyncio.Task[None] | None = None

    def start(self) -> Config:
        config = self.source.read()
        self.task = asyncio.get_running_loop().create_task(self.source.run())
        return config

    async def write(self, config: str, engines: str = "{}") -> None:
        data = to_config_map(Documents(config, engines))
        await self.server.put(PATH, {"metadata": {"name": "config"}, **data})

    async def next(self) -> Config:
        async with asyncio.timeout(10):
            return await self.source.changed()

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
        await self.api.close()


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as made:
        yield made


@pytest.fixture
async def following(server: ApiServer, tmp_path: Path) -> AsyncIterator[Following]:
    made = Following(server, tmp_path)
    yield made
    await made.stop()


def names(config: Config) -> list[str]:
    return [model.name for model in config.models]


async def test_before_the_config_map_exists_there_is_a_reason_and_then_a_configuration(following: Following) -> None:
    assert names(following.start()) == []
    await until(lambda: "does not exist yet" in (following.source.waiting or ""))
    assert following.source.waiting == "waiting for the ConfigMap ns/config: it does not exist yet"
    await following.write(text("chat"))
    assert names(await following.next()) == ["chat"]
    assert following.source.waiting is None


async def test_a_configuration_without_models_is_one(following: Following) -> None:
    following.start()
    await following.write("models: []")
    assert names(await following.next()) == []
    assert following.source.waiting is None


async def test_changes_are_returned(following: Following) -> None:
    await following.write(text("a"))
    following.start()
    assert names(await following.next()) == ["a"]
    await following.write(text("a", "b"))
    assert names(await following.next()) == ["a", "b"]


async def test_a_large_configuration_is_packed(following: Following) -> None:
    await following.write(text("a") + "\n# " + "x" * 800_000)
    assert following.server.objects[PATH]["config"].get("binaryData")
    following.start()
    assert names(await following.next()) == ["a"]


async def test_the_mounted_copy_is_read_while_the_server_is_away(following: Following) -> None:
    (following.mounted / "quarterdeck.yaml").write_text(text("a"))
    (following.mounted / "engines.json").write_text(ENGINES % "Zero")
    await following.server.stop()
    assert names(following.start()) == ["a"]
    assert following.source.engines.current.engines["chat"].state == "Zero"
    assert following.source.waiting is None
    await until(lambda: following.source.stale is not None)
    await following.server.start()
    await following.write(text("b"))
    assert names(await following.next()) == ["b"]


async def test_without_copy_and_server_the_reason_names_the_server(following: Following) -> None:
    await following.server.stop()
    following.start()
    await until(lambda: "does not answer" in (following.source.waiting or ""))


async def test_a_copy_that_is_what_the_server_has_is_no_change(following: Following) -> None:
    (following.mounted / "quarterdeck.yaml").write_text(text("a"))
    await following.write(text("a"))
    following.start()
    changed = asyncio.create_task(following.next())
    await until(lambda: following.source._follower.is_synced)
    await following.write(text("b"))
    assert names(await changed) == ["b"], "the first change is the one to b"


async def test_engines_change_without_a_new_configuration(following: Following) -> None:
    await following.write(text("chat"), ENGINES % "Zero")
    following.start()
    await following.next()
    changed = asyncio.create_task(following.next())
    await following.write(text("chat"), ENGINES % "Serving")
    await until(lambda: following.source.engines.current.engines["chat"].state == "Serving")
    assert not changed.done()
    changed.cancel()


@pytest.mark.parametrize(
    ("config", "engines", "problem"),
    [
        ("models: [{name: a}]", "{}", "requires an `engine`"),
        ("models: [{name: b, engine: {source: x}, from_a_newer_operator: 1}]", "{}", "unknown setting"),
        (text("b"), "[", "engines.json is invalid"),
        (text("a"), "[", "engines.json is invalid"),
    ],
)
async def test_an_invalid_one_is_refused_and_the_next_valid_one_taken(
    following: Following, config: str, engines: str, problem: str
) -> None:
    await following.write(text("a"), ENGINES % "Zero")
    following.start()
    await following.next()
    await following.write(config, engines)
    with pytest.raises(ConfigError, match=problem):
        await following.next()
    assert following.source.engines.current.engines["chat"].state == "Zero"
    await following.write(text("a"), ENGINES % "Zero")
    assert names(await following.next()) == ["a"], "it is returned although it was in force: it is valid again"


async def test_a_config_map_without_a_configuration_is_refused(following: Following) -> None:
    following.start()
    await following.server.put(PATH, {"metadata": {"name": "config"}, "data": {"other": "1"}})
    with pytest.raises(ConfigError, match=r"ns/config: the ConfigMap has no quarterdeck\.yaml"):
        await following.next()


async def test_a_deleted_config_map_changes_nothing(following: Following, caplog: pytest.LogCaptureFixture) -> None:
    await following.write(text("a"))
    following.start()
    await following.next()
    changed = asyncio.create_task(following.next())
    await following.server.delete(PATH, "config")
    await until(lambda: "was deleted, keeping its last configuration" in caplog.text)
    assert not changed.done() and following.source.waiting is None
    await following.write(text("b"))
    assert names(await changed) == ["b"]


async def test_after_a_restart_with_an_invalid_copy_the_last_valid_one_is_in_force(
    server: ApiServer, tmp_path: Path
) -> None:
    first = Following(server, tmp_path)
    await first.write(text("a"), ENGINES % "Serving")
    first.start()
    await first.next()
    await first.stop()
    second = Following(server, tmp_path)
    (second.mounted / "quarterdeck.yaml").write_text("models: nonsense")
    await server.stop()
    assert names(second.start()) == ["a"]
    assert second.source.engines.current.engines["chat"].state == "Serving"
    await second.stop()


@pytest.mark.parametrize("content", [b"", b"{", b'{"config": 1}', b"\xff"])
async def test_a_damaged_saved_copy_counts_as_absent(server: ApiServer, tmp_path: Path, content: bytes) -> None:
    following = Following(server, tmp_path)
    following.saved.parent.mkdir()
    following.saved.write_bytes(content)
    assert names(following.source.read()) == []
    await following.stop()


async def test_a_state_folder_that_can_not_be_written_stops_nothing(server: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    following = Following(server, tmp_path)
    await following.write(text("a"))
    following.start()
    assert names(await following.next()) == ["a"]
    await following.stop()


async def test_a_refresh_reads_again(following: Following) -> None:
    await following.write(text("a"))
    following.start()
    await following.next()
    following.source.refresh()
    assert names(await following.next()) == ["a"]


def test_a_mounted_gzip_bomb_is_refused(tmp_path: Path) -> None:
    import gzip

    from quarterdeck.kube.compiled import from_folder

    (tmp_path / "quarterdeck.yaml.gz").write_bytes(gzip.compress(b" " * 20_000_000))
    with pytest.raises(ValueError, match="more than"):
        from_folder(tmp_path)


def test_a_mounted_config_map_may_be_packed(tmp_path: Path) -> None:
    import base64

    from quarterdeck.kube.compiled import from_folder

    documents = Documents("a" * 800_000, "{}")
    packed: Any = to_config_map(documents)["binaryData"]
    for key, value in packed.items():
        (tmp_path / key).write_bytes(base64.b64decode(value))
    assert from_folder(tmp_path) == documents
