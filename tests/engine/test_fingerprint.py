"""A model's fingerprint changes with its files, and with nothing else."""

import os
from pathlib import Path

import pytest

from quarterdeck.engine.fingerprint import fingerprint
from quarterdeck.settings.engine import EngineConfig

MIB = 1 << 20


def engine(**fields: object) -> EngineConfig:
    return EngineConfig.model_validate({"source": "./model"} | fields)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(3 * MIB))
    return folder


def test_the_same_files_elsewhere_have_the_same_fingerprint(model: Path, tmp_path: Path) -> None:
    first = fingerprint(engine(), tmp_path)
    model.rename(tmp_path / "moved")
    os.utime(tmp_path / "moved" / "config.json", (1, 1))
    assert fingerprint(engine(source="./moved"), tmp_path) == first != ""


def test_other_weights_of_the_same_size_have_another(model: Path, tmp_path: Path) -> None:
    first = fingerprint(engine(), tmp_path)
    (model / "model.safetensors").write_bytes(os.urandom(3 * MIB))
    assert fingerprint(engine(), tmp_path) != first


def test_a_changed_config_or_template_has_another(model: Path, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("a")
    found = {fingerprint(engine(), tmp_path)}
    (model / "config.json").write_text("[]")
    found.add(fingerprint(engine(), tmp_path))
    found.add(fingerprint(engine(chat_template="chat.jinja"), tmp_path))
    template.write_text("b")
    found.add(fingerprint(engine(chat_template="chat.jinja"), tmp_path))
    assert len(found) == 4


def test_a_packaged_model_has_that_of_its_recipe_and_a_hub_id_none(tmp_path: Path) -> None:
    packaged = [
        fingerprint(engine(source=f"packaged:{name}"), tmp_path)
        for name in ("all-minilm-l6-v2", "smollm2-135m-instruct")
    ]
    assert len(set(packaged)) == 2 and "" not in packaged
    assert fingerprint(engine(source="org/model"), tmp_path) == ""
    assert fingerprint(engine(source="packaged:unknown"), tmp_path) == ""
    with pytest.raises(OSError):
        fingerprint(engine(source="./none"), tmp_path)
