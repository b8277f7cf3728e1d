"""Adapters are copied by content, and what an engine could not read is refused."""

import os
import shutil
from pathlib import Path

import pytest
from tests.engine.lora import safetensors, write_adapter

from quarterdeck.engine.adapter_store import KEPT_SECONDS, MARK, AdapterFilesError, AdapterStore


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "copies")


def test_the_engines_name_changes_with_the_content_only(store: AdapterStore, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "a", b"one")
    first = store.take("pirate", source)
    assert store.take("pirate", write_adapter(tmp_path / "moved", b"one")) == first
    second = store.take("pirate", write_adapter(source, b"two"))
    assert second.engine_name != first.engine_name
    assert second.path != first.path
    assert first.name == second.name == "pirate"
    assert [adapter.engine_name.partition(MARK)[0] for adapter in (first, second)] == ["pirate", "pirate"]


def test_a_copy_outlives_its_source(store: AdapterStore, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "a")
    adapter = store.take("pirate", source)
    shutil.rmtree(source)
    assert store.has(adapter)
    assert (adapter.path / "adapter_model.safetensors").read_bytes() == safetensors()
    shutil.rmtree(adapter.path)
    assert not store.has(adapter)


def test_training_state_is_not_copied(store: AdapterStore, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "a")
    (source / "optimizer.pt").write_bytes(b"x" * 1000)
    (source / "checkpoint-1").mkdir()
    copied = store.take("pirate", source).path
    assert sorted(os.listdir(copied)) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize(
    "weights", [b"", b"short", safetensors()[:-1], safetensors() + b"x", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"]
)
def test_incomplete_weights_are_refused(store: AdapterStore, tmp_path: Path, weights: bytes) -> None:
    source = write_adapter(tmp_path / "a")
    (source / "adapter_model.safetensors").write_bytes(weights)
    with pytest.raises(AdapterFilesError, match="damaged or incomplete"):
        store.take("pirate", source)
    assert os.listdir(tmp_path / "copies") == []


def test_a_folder_without_config_or_weights_is_refused(store: AdapterStore, tmp_path: Path) -> None:
    with pytest.raises(AdapterFilesError, match=r"no adapter_config\.json"):
        store.take("pirate", tmp_path / "none")
    source = write_adapter(tmp_path / "a")
    (source / "adapter_config.json").write_text("[1]")
    with pytest.raises(AdapterFilesError, match="not a JSON object"):
        store.take("pirate", source)
    (source / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterFilesError, match=r"no adapter_model\.safetensors"):
        store.take("pirate", source)


def test_a_link_to_a_file_outside_the_roots_is_not_copied(store: AdapterStore, tmp_path: Path) -> None:
    secret = write_adapter(tmp_path / "elsewhere") / "adapter_model.safetensors"
    source = write_adapter(tmp_path / "root" / "a")
    (source / secret.name).unlink()
    (source / secret.name).symlink_to(secret)
    with pytest.raises(AdapterFilesError, match="outside"):
        store.take("pirate", source, [tmp_path / "root"])
    assert store.has(store.take("pirate", source))  # the configuration's own


def test_unused_copies_are_deleted_after_an_hour(store: AdapterStore, tmp_path: Path) -> None:
    used = store.take("used", write_adapter(tmp_path / "a", b"one"))
    unused = store.take("unused", write_adapter(tmp_path / "a", b"two"))
    later = unused.path.stat().st_mtime + KEPT_SECONDS + 1
    store.prune({used.path}, later - 2)
    assert store.has(unused)
    store.prune({used.path}, later)
    assert not store.has(unused)
    assert store.has(used)
    AdapterStore(tmp_path / "nothing").prune(set())
