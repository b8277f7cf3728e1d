"""Packaged models are prepared once, completely or not at all, and only from the expected wheel."""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from quarterdeck.engine.packaged import (
    MODELS,
    PackagedModel,
    PreparationError,
    _unpack,
    folder_of,
    is_prepared,
    packaged,
    prepare,
    template_text,
)
from quarterdeck.settings.engine import EngineConfig


@pytest.fixture
def model(tmp_path: Path) -> PackagedModel:
    """A model whose wheel lies in the cache already."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    path = wheels / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_model/model/config.json", "{}")
        wheel.writestr("tiny_model/model/1_Pooling/config.json", "{}")
        wheel.writestr("tiny_model/model/README.md", "read me")
        wheel.writestr("tiny_model/__init__.py", "")
    return PackagedModel(
        name="tiny",
        distribution="tiny-model",
        version="1.0",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        megabytes=1,
        recipe=partial(_unpack, prefix="tiny_model/model", leave_out=frozenset({"README.md"})),
    )


def test_the_models_files_and_no_others_are_taken(model: PackagedModel, tmp_path: Path) -> None:
    folder = prepare(model, tmp_path, lambda _: None)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        ".prepared.json",
        "1_Pooling/config.json",
        "config.json",
    ]


def test_a_second_time_changes_nothing(model: PackagedModel, tmp_path: Path) -> None:
    said: list[str] = []
    inode = prepare(model, tmp_path, said.append).stat().st_ino
    said.clear()
    assert prepare(model, tmp_path, said.append).stat().st_ino == inode
    assert said == ["ready"]


def test_another_recipe_is_made_again(model: PackagedModel, tmp_path: Path) -> None:
    folder = prepare(model, tmp_path, lambda _: None)
    (folder / ".prepared.json").write_text('{"recipe": 0}')
    (folder / "left_over").touch()
    assert not is_prepared(model, tmp_path)
    assert not (prepare(model, tmp_path, lambda _: None) / "left_over").exists()


def test_one_that_fails_leaves_nothing(model: PackagedModel, tmp_path: Path) -> None:
    def fail(wheel: zipfile.ZipFile, folder: Path, say: Callable[[str], None]) -> None:
        (folder / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        prepare(replace(model, recipe=fail), tmp_path, lambda _: None)
    assert list(folder_of("tiny", tmp_path).parent.iterdir()) == []


def test_a_wheel_that_is_not_the_known_one_is_not_used(
    model: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(PreparationError, match="could not download tiny-model"):
        prepare(replace(model, sha256="0" * 64), tmp_path, lambda _: None)


def test_a_name_that_is_not_packaged_is_said_with_those_that_are() -> None:
    assert packaged(EngineConfig(source="packaged:all-minilm-l6-v2")) is MODELS["all-minilm-l6-v2"]
    with pytest.raises(PreparationError, match="all-minilm-l6-v2, smollm2-135m-instruct"):
        packaged(EngineConfig(source="packaged:gpt-5"))


def test_the_chat_template_ships_and_knows_tools() -> None:
    assert "<tool_call>" in template_text("chatml-hermes-tools.jinja")
