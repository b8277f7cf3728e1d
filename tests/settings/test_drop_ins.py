"""Models that are added beside quarterdeck.yaml."""

import asyncio
import os
from pathlib import Path

import pytest

from quarterdeck.settings.drop_ins import DropIns, load_with_drop_ins
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.source import FileSource

FILE = "models:\n  - {name: own, aliases: [first], engine: {source: 'packaged:smollm2-135m-instruct'}}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "quarterdeck.yaml"
    path.write_text(FILE)
    (tmp_path / "models.d").mkdir()
    return path


def add(file: Path, name: str, text: str) -> Path:
    path = file.parent / "models.d" / name
    path.write_text(text)
    return path


def names(file: Path) -> list[str]:
    return [model.name for model in load_with_drop_ins(file, file.parent / "models.d").models]


def test_added_models_come_after_those_of_the_file(file: Path) -> None:
    add(file, "b.yaml", "{name: second, engine: {source: Qwen/Qwen2.5-0.5B-Instruct, revision: main}}")
    add(file, "a.yaml", "name: Qwen/third\nendpoints: [{url: 'http://10.0.0.1:8000'}]\n")
    config = load_with_drop_ins(file, file.parent / "models.d")
    assert [model.name for model in config.models] == ["own", "Qwen/third", "second"]
    assert config.added_models == {"Qwen/third", "second"}
    assert config.problems == ()


def test_without_a_folder_the_file_is_the_configuration(tmp_path: Path, file: Path) -> None:
    config = load_with_drop_ins(file, tmp_path / "nowhere")
    assert [model.name for model in config.models] == ["own"] and not config.added_models


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: [", "models.d/bad.yaml:2: "),
        ("- a\n", "models.d/bad.yaml:1: expected a mapping with `name:` and `engine:`"),
        ("name: x\nengine: {sauce: y}\n", "models.d/bad.yaml:2: engine.source: is required"),
        ("name: x\n", "requires an `engine`"),
        ("name: x\nname: y\nengine: {source: a/b}\n", "duplicate key"),
        ("x: " + "a" * 70_000, "larger than"),
        ("name: own\nengine: {source: a/b}\n", "'own' is in quarterdeck.yaml as well"),
        ("name: first\nengine: {source: a/b}\n", "duplicate name 'first'"),
        ("name: x\naliases: [own]\nengine: {source: a/b}\n", "duplicate name 'own'"),
        ("name: good\nengine: {source: a/b}\n", "'good' is defined in"),
        ("name: x\nrouting: {session: 'header:x-a'}\nengine: {source: a/b}\n", "gateway.forward_headers"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_the_others_are_served(file: Path, text: str, problem: str) -> None:
    add(file, "a.yaml", "{name: good, engine: {source: a/b}}")
    add(file, "bad.yaml", text)
    add(file, "z.yaml", "{name: also, engine: {source: a/b}}")
    config = load_with_drop_ins(file, file.parent / "models.d")
    assert {model.name for model in config.models} == {"own", "good", "also"}
    (found,) = config.problems
    assert problem in found and "bad.yaml" in found


def test_other_kinds_of_files_are_named_and_not_waited_for(file: Path) -> None:
    os.mkfifo(file.parent / "models.d" / "pipe.yaml")
    (file.parent / "models.d" / "folder.yaml").mkdir()
    add(file, "latin.yaml", "").write_bytes(b"name: \xff\n")
    add(file, ".hidden.yaml", "name: [")
    add(file, "note.txt", "name: [")
    config = load_with_drop_ins(file, file.parent / "models.d")
    assert [model.name for model in config.models] == ["own"]
    assert len(config.problems) == 3


def test_a_route_of_the_file_may_name_an_added_model(file: Path) -> None:
    file.write_text(
        FILE + "routes:\n  - {name: best, targets: [{model: own, weight: 1}, {model: second, weight: 1}]}\n"
    )
    with pytest.raises(ConfigError, match="unknown model or adapter 'second'"):
        load_with_drop_ins(file, file.parent / "models.d")
    add(file, "second.yaml", "{name: second, engine: {source: a/b}}")
    config = load_with_drop_ins(file, file.parent / "models.d")
    assert [model.name for model in config.models] == ["own", "second"]
    assert config.added_models == {"second"} and config.problems == ()


def test_a_file_that_breaks_keeps_its_previous_definition(file: Path) -> None:
    path = add(file, "second.yaml", "{name: second, engine: {source: a/b}}")
    drop_ins = DropIns(path.parent)
    before = drop_ins.load(file)
    path.write_text("name: second\nengine: {")
    after = drop_ins.load(file)
    assert after.models == before.models
    assert "the previous definition stays in force" in after.problems[0]
    path.unlink()
    assert [model.name for model in drop_ins.load(file).models] == ["own"]


def test_an_invalid_quarterdeck_yaml_is_refused_as_before(file: Path) -> None:
    add(file, "a.yaml", "{name: good, engine: {source: a/b}}")
    file.write_text("models: 7\n")
    with pytest.raises(ConfigError, match=r"quarterdeck.yaml:1: models"):
        load_with_drop_ins(file, file.parent / "models.d")


async def test_a_source_follows_both_the_file_and_the_folder(file: Path) -> None:
    source = FileSource(file, drop_ins=file.parent / "models.d", poll_seconds=0.01)
    assert len(source.read().models) == 1
    async with asyncio.timeout(30):
        path = add(file, "second.yaml", "{name: second, engine: {source: a/b}}")
        assert [model.name for model in (await source.changed()).models] == ["own", "second"]
        path.unlink()
        assert [model.name for model in (await source.changed()).models] == ["own"]
