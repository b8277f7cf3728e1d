"""Adapters are loaded into every replica or none, and again into a restarted one."""

import shutil
from pathlib import Path

import pytest
from tests.engine.lora import write_adapter

from quarterdeck.engine.adapter_store import Adapter, AdapterStore
from quarterdeck.engine.adapters import (
    FIRST_RETRY_SECONDS,
    MAX_RETRY_SECONDS,
    RETIRE_SECONDS,
    Adapters,
    Replica,
    parse_adapter_request,
    validated_folder,
)
from quarterdeck.errors import BadRequestError, ConflictError, EngineError, NotFoundError

A, B = Replica("a", "http://a"), Replica("b", "http://b")


class FakeReplicas:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.refusing: set[str] = set()

    async def load(self, url: str, adapter: Adapter) -> None:
        self.calls.append(("load", url, adapter.engine_name))
        if url in self.refusing:
            raise EngineError("no room")

    async def unload(self, url: str, engine_name: str) -> None:
        self.calls.append(("unload", url, engine_name))

    def names(self) -> list[str]:
        """Calls without the content's hash."""
        return [f"{call} {url[-1]} {name.partition('@')[0]}" for call, url, name in self.calls]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def replicas() -> FakeReplicas:
    return FakeReplicas()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def adapters(replicas: FakeReplicas, tmp_path: Path, clock: Clock) -> Adapters:
    store = AdapterStore(tmp_path / "copies")
    return Adapters(replicas, {"chat": 2, "off": 0}, [tmp_path], store, now=clock)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(write_adapter(tmp_path / "pirate"))


async def test_it_is_loaded_into_every_replica(adapters: Adapters, replicas: FakeReplicas, folder: str) -> None:
    adapter = await adapters.add("chat", "pirate", folder, [A, B])
    assert replicas.names() == ["load a pirate", "load b pirate"]
    assert adapters.loaded("a") == adapters.loaded("b") == {"pirate": adapter.engine_name}


async def test_if_one_refuses_none_keeps_it(adapters: Adapters, replicas: FakeReplicas, folder: str) -> None:
    replicas.refusing = {"http://b"}
    with pytest.raises(EngineError, match="no room"):
        await adapters.add("chat", "pirate", folder, [A, B])
    assert replicas.names()[-1] == "unload a pirate"
    assert adapters.loaded("a") == {}
    await adapters.reconcile({"chat": [A]})
    assert replicas.names()[-1] == "unload a pirate"


async def test_a_replica_that_came_back_gets_what_it_lacks(
    adapters: Adapters, replicas: FakeReplicas, folder: str
) -> None:
    await adapters.add("chat", "pirate", folder, [A])
    assert adapters.lacks_adapters("chat", B)
    await adapters.reconcile({"chat": [B]})
    assert (list(adapters.loaded("a")), list(adapters.loaded("b"))) == ([], ["pirate"])
    assert not adapters.lacks_adapters("chat", B)


async def test_a_refused_adapter_is_retried_and_its_model_is_not_held_up(
    adapters: Adapters, replicas: FakeReplicas, folder: str, clock: Clock
) -> None:
    replicas.refusing = {"http://a"}
    adapters.follow({"chat": 2}, {"chat": {"pirate": Path(folder)}})
    await adapters.reconcile({"chat": [A]})
    await adapters.reconcile({"chat": [A]})
    assert replicas.names() == ["load a pirate"]
    assert not adapters.lacks_adapters("chat", A)
    assert adapters.failures("chat", "a") == {"pirate": "no room"}
    clock.now += FIRST_RETRY_SECONDS
    await adapters.reconcile({"chat": [A]})
    assert len(replicas.calls) == 2
    replicas.refusing = set()
    clock.now += MAX_RETRY_SECONDS
    await adapters.reconcile({"chat": [A]})
    assert list(adapters.loaded("a")) == ["pirate"]
    assert adapters.failures("chat", "a") == {}


async def test_an_adapter_without_files_never_reaches_the_engine_and_is_loaded_once_it_has_them(
    adapters: Adapters, replicas: FakeReplicas, tmp_path: Path, clock: Clock
) -> None:
    adapters.follow({"chat": 2}, {"chat": {"pirate": tmp_path / "late"}})
    assert adapters.lacks_adapters("chat", A)
    await adapters.reconcile({"chat": [A]})
    assert replicas.calls == []
    assert "adapter_config.json" in adapters.failures("chat", "a")["pirate"]
    assert not adapters.lacks_adapters("chat", A)
    write_adapter(tmp_path / "late")
    clock.now += FIRST_RETRY_SECONDS
    await adapters.reconcile({"chat": [A]})
    assert replicas.names() == ["load a pirate"]
    assert adapters.failures("chat", "a") == {}


async def test_the_copy_is_made_while_the_model_still_loads(
    adapters: Adapters, replicas: FakeReplicas, folder: str
) -> None:
    adapters.follow({"chat": 2}, {"chat": {"pirate": Path(folder)}})
    await adapters.reconcile({})
    shutil.rmtree(folder)
    await adapters.reconcile({"chat": [A]})
    assert replicas.names() == ["load a pirate"]


async def test_a_source_that_is_moved_away_changes_nothing(
    adapters: Adapters, replicas: FakeReplicas, folder: str
) -> None:
    await adapters.add("chat", "pirate", folder, [A])
    shutil.rmtree(folder)
    await adapters.reconcile({"chat": [A, B]})
    assert replicas.names() == ["load a pirate", "load b pirate"]


async def test_an_adapter_whose_copy_is_gone_is_copied_again_or_unloaded(
    adapters: Adapters, replicas: FakeReplicas, folder: str, clock: Clock
) -> None:
    adapter = await adapters.add("chat", "pirate", folder, [A])
    shutil.rmtree(adapter.path)
    await adapters.reconcile({"chat": [A]})
    assert (adapter.path / "adapter_config.json").exists()
    assert len(replicas.calls) == 1
    shutil.rmtree(adapter.path)
    shutil.rmtree(folder)
    await adapters.reconcile({"chat": [A]})
    assert replicas.names()[1:] == ["unload a pirate"]
    assert adapters.loaded("a") == {}
    assert list(adapters.failures("chat", "a")) == ["pirate"]


async def test_an_adapter_is_replaced_under_its_name_without_a_gap(
    adapters: Adapters, replicas: FakeReplicas, folder: str, clock: Clock
) -> None:
    old = await adapters.add("chat", "pirate", folder, [A])
    write_adapter(Path(folder), b"better weights")
    new = await adapters.add("chat", "pirate", folder, [A])
    assert (old.name, new.name) == ("pirate", "pirate")
    assert adapters.loaded("a") == {"pirate": new.engine_name}
    assert replicas.calls[1:] == [("load", "http://a", new.engine_name)]
    clock.now += RETIRE_SECONDS
    await adapters.reconcile({"chat": [A]})
    assert replicas.calls[2:] == [("unload", "http://a", old.engine_name)]
    again = await adapters.add("chat", "pirate", folder, [A])
    assert again == new
    assert len(replicas.calls) == 3


async def test_a_replacement_that_is_refused_leaves_the_old_one(
    adapters: Adapters, replicas: FakeReplicas, folder: str
) -> None:
    old = await adapters.add("chat", "pirate", folder, [A])
    write_adapter(Path(folder), b"bad weights")
    replicas.refusing = {"http://a"}
    with pytest.raises(EngineError):
        await adapters.add("chat", "pirate", folder, [A])
    await adapters.reconcile({"chat": [A]})
    assert adapters.loaded("a") == {"pirate": old.engine_name}


async def test_the_configurations_adapter_is_reloaded_from_its_own_path_only(
    adapters: Adapters, folder: str, tmp_path: Path
) -> None:
    adapters.follow({"chat": 2}, {"chat": {"pirate": Path(folder)}})
    await adapters.reconcile({"chat": [A]})
    before = adapters.loaded("a")
    with pytest.raises(ConflictError, match="configuration"):
        await adapters.add("chat", "pirate", str(write_adapter(tmp_path / "other")), [A])
    write_adapter(Path(folder), b"new")
    await adapters.add("chat", "pirate", folder, [A])
    assert adapters.loaded("a") != before


async def test_a_removed_one_is_unloaded_and_not_replayed(
    adapters: Adapters, replicas: FakeReplicas, folder: str
) -> None:
    await adapters.add("chat", "pirate", folder, [A])
    await adapters.remove("chat", "pirate", [A])
    await adapters.reconcile({"chat": [A, B]})
    assert replicas.names()[-1] == "unload a pirate"
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
    for name in ("a@b", "", "x" * 200, 'q"'):
        with pytest.raises(BadRequestError, match="'name'"):
            await adapters.add("chat", name, folder, [A])
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
    for path in ("/a\x00b", "/\ud800"):
        with pytest.raises(BadRequestError, match="valid path"):
            validated_folder(path, [tmp_path])


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model": 1, "name": "a", "path": "/b"}', b"\xff"])
def test_an_invalid_body_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse_adapter_request(body)


def test_a_request_is_parsed() -> None:
    assert parse_adapter_request(b'{"model": "chat", "name": "a", "path": "/b"}') == ("chat", "a", "/b")
