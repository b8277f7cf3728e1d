"""Files and platform compared: a plan that applied twice changes nothing, and deletes only with prune."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.cli.prompt_files import (
    FileError,
    Plan,
    PromptFile,
    PromptState,
    file_text,
    make_plan,
    path_of,
    read_file,
    read_folder,
)
from quarterdeck.settings.prompts import PromptSpec

GREET = """
name: team/greet
description: says hello
labels: [production]
messages:
- role: user
  content: |
    Greet {{ name }}.
    Be kind.
variables:
  name: {default: null}
model: chat
"""


def state(name: str = "team/greet", version: int = 1, *, labels: Any = None, **fields: Any) -> PromptState:
    """A prompt of the platform; `fields` are its content's, or the prompt's own."""
    own = {key: fields.pop(key) for key in ("description", "teams", "archived") if key in fields}
    spec = PromptSpec.model_validate(fields or {"text": "x"})
    shown = {"name": name, "description": "", "teams": None, "archived": None, **own}
    return PromptState(
        {**shown, "latest_version": version, "labels": labels or {}},
        {**spec.content(), "digest": spec.digest, "version": version},
    )


def write(folder: Path, text: str, name: str = "a.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def words(plan: Plan) -> list[str]:
    return [f"{step.name}: {step.text}" for step in plan.steps]


def file(tmp_path: Path, text: str = GREET) -> PromptFile:
    return read_file(write(tmp_path, text))


def test_a_new_prompt_is_created_with_its_labels(tmp_path: Path) -> None:
    plan = make_plan([file(tmp_path)], [], prune=False)
    assert words(plan) == ["team/greet: create, labelled production"]
    assert "+    Greet {{ name }}.\n" in plan.steps[0].diff


def test_what_the_platform_has_is_left_alone(tmp_path: Path) -> None:
    wanted = file(tmp_path)
    there = state(description="says hello", labels={"production": {"version": 1}}, **wanted.content)
    plan = make_plan([wanted], [there], prune=True)
    assert (plan.steps, plan.unchanged) == ((), 1)


def test_other_content_is_the_next_version_and_takes_the_labels(tmp_path: Path) -> None:
    wanted = file(tmp_path)
    there = state(version=4, description="old", labels={"production": {"version": 4}}, text="x")
    plan = make_plan([wanted], [there], prune=False)
    assert words(plan) == [
        "team/greet: update description",
        "team/greet: version 5",
        "team/greet: label production: version 5 (from 4)",
    ]
    assert plan.steps[1].diff.startswith("--- team/greet@4\n+++ team/greet@5\n")


def test_a_running_canary_is_left_alone_and_noted(tmp_path: Path) -> None:
    split = {"split": [{"version": 1, "weight": 90.0}, {"version": 2, "weight": 10.0}]}
    plan = make_plan([file(tmp_path)], [state(version=2, labels={"production": split}, text="x")], prune=False)
    assert "label" not in [step.kind for step in plan.steps]
    assert plan.notes == ("team/greet: the label production is split (1: 90, 2: 10); it is left alone",)


def test_an_archived_prompt_is_noted_and_not_changed(tmp_path: Path) -> None:
    plan = make_plan([file(tmp_path, "name: a\ntext: b\n")], [state("a", archived=5, text="x")], prune=False)
    assert (plan.steps, len(plan.notes)) == ((), 1)


def test_prompts_without_a_file_are_deleted_only_with_prune(tmp_path: Path) -> None:
    there = [state("other", text="x")]
    plan = make_plan([file(tmp_path)], there, prune=False)
    assert (words(plan), plan.extra) == (["team/greet: create, labelled production"], ("other",))
    plan = make_plan([file(tmp_path)], there, prune=True)
    assert [(step.name, step.kind) for step in plan.steps] == [("team/greet", "create"), ("other", "delete")]


@given(
    st.fixed_dictionaries(
        {"text": st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)},
        optional={
            "model": st.sampled_from(["chat", "null", "1", "yes"]),
            "description": st.sampled_from(["", "d", "- a: b", "#x"]),
            "teams": st.just(["red"]),
            "parameters": st.dictionaries(
                st.sampled_from(["temperature", "stop"]), st.sampled_from([1, 0.5, "a", [""]])
            ),
        },
    )
)
def test_what_is_pulled_and_applied_changes_nothing(fields: dict[str, Any]) -> None:
    there = state("greet", version=3, labels={"production": {"version": 3}, "old": {"version": 1}}, **fields)
    value = yaml.safe_load(file_text(there))
    spec = PromptSpec.model_validate(
        {name: each for name, each in value.items() if name not in ("name", "description", "teams", "labels")}
    )
    teams = value.get("teams")
    wanted = PromptFile(
        Path("x"),
        value["name"],
        spec,
        value.get("description"),
        None if teams is None else tuple(teams),
        "teams" in value,
        tuple(value.get("labels", ())),
    )
    assert make_plan([wanted], [there], prune=True).steps == ()


def test_texts_of_several_lines_are_blocks() -> None:
    assert file_text(state("greet", text="a\nb {{ x }}\n")) == "name: greet\ntext: |\n  a\n  b {{ x }}\n"


def test_a_folder_is_read_with_its_subfolders_and_without_hidden_ones(tmp_path: Path) -> None:
    write(tmp_path, "name: b\ntext: b", "x/b.yml")
    write(tmp_path, "name: a\ntext: a", "a.yaml")
    write(tmp_path, "not a prompt", ".git/c.yaml")
    write(tmp_path, "not a prompt", "README.md")
    assert [each.name for each in read_folder(tmp_path)] == ["a", "b"]
    write(tmp_path, "name: a\ntext: a", "z.yaml")
    with pytest.raises(FileError, match=r"z.yaml: the prompt 'a' is also in .*a.yaml"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a mapping with a `name`"),
        ("text: x", "a mapping with a `name`"),
        ("name: a", "either `text` or `messages`"),
        ("name: a\ntext: '{{ x.y }}'", "text: Invalid template: line 1"),
        ("name: a\ntext: x\nsurprise: 1", "surprise: Extra inputs"),
        ("name: a\ntext: x\nparameters: {n: many}", "parameters.n: Invalid type for 'n'"),
        ("name: a\ntext: x\nlabels: production", "`labels` is a list"),
        ("name: a\ntext: x\nteams: [1]", "`teams` is a list"),
        ("name: a\ntext: x\ndescription: [1]", "`description` is a text"),
        ("name: a\n  text: x", "mapping values are not allowed"),
        ("name: a\ntext: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    ],
)
def test_a_file_that_holds_no_prompt_is_refused_in_a_line_with_its_name(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(FileError, match=message) as refused:
        file(tmp_path, text)
    assert str(refused.value).startswith(f"{tmp_path}/a.yaml: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a//b", "", "a/.", "a\\b"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError):
        path_of(tmp_path, name)
    assert path_of(tmp_path, "a/b.c") == tmp_path / "a" / "b.c.yaml"
