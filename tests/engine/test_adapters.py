"""Adapters are loaded into every replica or none, and again into a restarted one."""

import json
from pathlib import Path

import pytest

from quarterdeck.engine.adapters import Adapter, Adapters, Replica, parse_adapter_request, validated_folder
from quarterdeck.errors import BadRequestError, ConflictError, EngineError, NotFoundError

A, B = Replica("a", "http://a"), Replica("b", "http://b")


class FakeReplicas:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.refusing: set[str] = set()

    async def load(self, url: str, adapter: Adapter) -> None:
        self.calls.append(("load", url, adapter.name))
        if url in self.refusing:
            raise EngineError("no room")

    async def unload(self, url: str, name: str) -> None:
        self.calls.append(("unload", url, name))


@pytest.fixture
def replicas() -> FakeReplicas:
    return FakeReplicas()


@pytest.fixture
def adapters(replicas: FakeReplicas, tmp_path: Path) -> Adapters:
    return Adapters(replicas, {"chat": 2, "off": 0}, [tmp_path])


@pytest.fixture
def folder(tmp_path: Path) -> str:
    path = tmp_path / "pirate"
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps({"r": 8}))
    return str(path)


async def test_it_is_loaded_into_every_replica(adapters: Adapters, replicas: FakeReplicas, folder: str) -> None:
    await adapters.add("chat", "pirate", folder, [A, B])
    assert replicas.calls == [("load", "http://a", "pirate"), ("load", "http://b", "pirate")]
    assert adapters.loaded == {"a": {"pirate"}, "b": {"pirate"}}


async def test_if_one_refuses_none_keeps_it(adapters: Adapters, replicas: FakeReplicas, folder: str) -> None:
    replicas.refusing = {"http://b"}
    with pytest.raises(EngineError, match="no room"):
        await adapters.add("chat", "pirate", folder, [A, B])
    assert replicas.calls[-1] == ("unload", "http://a", "pirate")
    assert adapters.loaded["a"] == set()
    await adapters.reconcile({"chat": [A]})
    assert replicas.calls[-1][0] == "unload"


async def test_a_replica_that_came_back_gets_what_it_lacks(
    adapters: Adapters, replicas: FakeReplicas, folder: str
) -> None:
    await adapters.add("chat", "pirate", folder, [A])
    assert adapters.lacks_adapters("chat", B)
    await adapters.reconcile({"chat": [B]})
    assert adapters.loaded == {"b": {"pirate"}}
    assert not adapters.lacks_adapters("chat", B)


async def test_a_replica_that_refuses_is_asked_once(adapters: Adapters, replicas: FakeReplicas, tmp_path: Path) -> None:
    replicas.refusing = {"http://a"}
    adapters.desire("chat", Adapter("pirate", tmp_path))
    await adapters.reconcile({"chat": [A]})
    await adapters.reconcile({"chat": [A]})
    assert replicas.calls == [("load", "http://a", "pirate")]
    assert not adapters.lacks_adapters("chat", A)


async def test_a_removed_one_is_unloaded_and_not_replayed(
    adapters: Adapters, replicas: FakeReplicas, folder: str
) -> None:
    await adapters.add("chat", "pirate", folder, [A])
    await adapters.remove("chat", "pirate", [A])
    await adapters.reconcile({"chat": [A, B]})
    assert replicas.calls[-1] == ("unload", "http://a", "pirate")
    with pytest.raises(NotFoundError):
        await adapters.remove("chat", "pirate", [A])


async def test_names_and_room_are_checked_before_anyone_is_asked(
    adapters: Adapters, replicas: FakeReplicas, folder: str
) -> None:
    with pytest.raises(NotFoundError):
        await adapters.add("unknown", "pirate", folder, [A])
    with pytest.raises(BadRequestError, match="max_adapters"):
        await adapters.add("off", "pirate", folder, [A])
    with pytest.raises(ConflictError):
        await adapters.add("chat", "off", folder, [A])
    await adapters.add("chat", "one", folder, [])
    await adapters.add("chat", "two", folder, [])
    with pytest.raises(ConflictError, match="2 adapters"):
        await adapters.add("chat", "three", folder, [])
    assert replicas.calls == []


def test_only_folders_below_a_root_are_opened(folder: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(folder)
    for path in (folder, str(root / "link"), str(root / ".." / "pirate"), "pirate"):
        with pytest.raises(BadRequestError, match="below"):
            validated_folder(path, [root])
    assert validated_folder(folder, [tmp_path]) == Path(folder)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=r"adapter_config\.json"):
        validated_folder(str(tmp_path), [tmp_path])


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model": 1, "name": "a", "path": "/b"}', b"\xff"])
def test_an_invalid_body_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse_adapter_request(body)


def test_a_request_is_parsed() -> None:
    assert parse_adapter_request(b'{"model": "chat", "name": "a", "path": "/b"}') == ("chat", "a", "/b")
