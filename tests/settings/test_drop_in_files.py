"""The files of added models, written."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.small_disk import SmallDisk

from quarterdeck.settings.drop_in_files import (
    DropInFiles,
    ModelTooLargeError,
    NameTakenError,
    NotAddedError,
    filename_of,
    text_of,
)
from quarterdeck.settings.drop_ins import read_drop_in
from quarterdeck.settings.engine import EngineConfig
from quarterdeck.settings.models import ModelConfig


def model(name: str, **engine: object) -> ModelConfig:
    return ModelConfig(
        name=name, engine=EngineConfig.model_validate({"source": "Qwen/Qwen2.5-0.5B-Instruct", **engine})
    )


@pytest.fixture
def files(tmp_path: Path) -> DropInFiles:
    return DropInFiles(tmp_path / "models.d")


def test_what_is_created_is_read_back(files: DropInFiles) -> None:
    made = model("Qwen/x:4bit", quantization="bitsandbytes", context=512, args={"max_num_seqs": 4})
    with files.locked():
        path = files.create(made)
    assert path.name == "Qwen%2Fx:4bit.yaml"
    assert read_drop_in(path).model == made
    assert path.stat().st_mode & 0o077 == 0


def test_a_name_is_added_once_and_removed_once(files: DropInFiles) -> None:
    with files.locked():
        files.create(model("a"))
        with pytest.raises(NameTakenError):
            files.create(model("a"))
        files.remove("a")
        with pytest.raises(NotAddedError):
            files.remove("a")
        with pytest.raises(NotAddedError):
            files.replace(model("a"))


def test_a_broken_file_is_not_overwritten_and_can_be_removed(files: DropInFiles) -> None:
    with files.locked():
        path = files.create(model("a"))
        path.write_text("name: [")
        with pytest.raises(NameTakenError):
            files.create(model("a"))
        assert files.remove("a") == path


def test_a_file_with_another_name_is_found_by_its_model(files: DropInFiles) -> None:
    with files.locked():
        path = files.create(model("a"))
        mine = path.rename(path.with_name("mine.yaml"))
        assert files.replace(model("a", context=99)) == mine
    assert "99" in mine.read_text()


def test_a_model_too_large_for_a_file_is_refused(files: DropInFiles) -> None:
    with files.locked(), pytest.raises(ModelTooLargeError):
        files.create(model("a", args={"x": "y" * 70_000}))
    assert files.read() == []


def test_concurrent_creations_of_one_name_leave_one_file(files: DropInFiles) -> None:
    outcomes: list[str] = []

    def create(name: str) -> None:
        try:
            with files.locked():
                files.create(model(name))
            outcomes.append(name)
        except NameTakenError:
            outcomes.append("taken")

    threads = [threading.Thread(target=create, args=(f"m{number % 5}",)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["m0", "m1", "m2", "m3", "m4", *["taken"] * 15]
    assert len(files.read()) == 5 and not any(each.problem for each in files.read())


def test_a_full_disk_keeps_the_previous_file(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "disk", kilobytes=64)
    try:
        files = DropInFiles(disk.folder / "models.d")
        with files.locked():
            path = files.create(model("a"))
            disk.fill()
            with pytest.raises(OSError, match="No space left"):
                files.replace(model("a", context=99, args={"x": "y" * 5000}))
            with pytest.raises(OSError, match="No space left"):
                files.create(model("b"))
        assert read_drop_in(path).model == model("a")
        assert sorted(each.name for each in files.folder.iterdir()) == [".lock", "a.yaml"]
    finally:
        disk.close()


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}(@[a-z0-9-]{1,32})?", fullmatch=True)


@given(NAMES, NAMES)
def test_different_names_have_different_file_names_that_a_folder_can_hold(one: str, other: str) -> None:
    assert len(filename_of(one)) < 255 and "/" not in filename_of(one)
    assert (filename_of(one) == filename_of(other)) == (one == other)


@given(NAMES)
def test_text_holds_the_whole_model(name: str) -> None:
    made = ModelConfig(name=name, stopped=True, engine=EngineConfig(source="a/b", context=16))
    assert "stopped: true" in text_of(made) and "context: 16" in text_of(made)
