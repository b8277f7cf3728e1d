"""Prompts as files in Git: read, compared with the platform, and written. Pure but for reading and writing files.

One YAML file holds one prompt: `name`, optionally `description`, `teams` and `labels`, and the content of a version.
The file is what the newest version should be, and its labels are those that should point at it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from quarterdeck.cli.output import reason_of
from quarterdeck.resources.prompts.checks import check_version
from quarterdeck.resources.prompts.files import diff_text, to_yaml
from quarterdeck.settings.prompts import NAME_PATTERN, PromptSpec
from quarterdeck.templating.prompt import SpecError

SUFFIXES = (".yaml", ".yml")
MAX_FILE = 1024 * 1024
_OWN = ("name", "description", "teams", "labels")


class FileError(Exception):
    """A file that holds no prompt. One line, which names the file."""


@dataclass(frozen=True, slots=True)
class PromptFile:
    """A prompt as a file has it. None: the file does not say."""

    path: Path
    name: str
    spec: PromptSpec
    description: str | None = None
    teams: tuple[str, ...] | None = None
    says_teams: bool = False
    labels: tuple[str, ...] = ()

    @property
    def content(self) -> dict[str, Any]:
        return self.spec.content()


@dataclass(frozen=True, slots=True)
class PromptState:
    """A prompt as the platform has it."""

    object: Mapping[str, Any]
    version: Mapping[str, Any]
    """Its newest version."""

    @property
    def name(self) -> str:
        return str(self.object["name"])

    @property
    def spec(self) -> PromptSpec:
        return PromptSpec.model_validate(content_of(self.version))


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a prompt. `diff`: of its content."""

    name: str
    kind: str
    """create, version, update, label or delete."""
    text: str
    file: PromptFile | None = None
    diff: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """`notes`: what differs and is left alone."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    unchanged: int = 0
    extra: tuple[str, ...] = field(default=())
    """Prompts of the platform that no file holds."""


def content_of(version: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a `prompt.version` object."""
    return {name: version[name] for name in PromptSpec.model_fields if name in version}


def read_folder(folder: Path) -> list[PromptFile]:
    """All prompts below a folder, by name. Raises FileError for the first file that holds none."""
    found: dict[str, PromptFile] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.suffix not in SUFFIXES or not path.is_file() or any(part.startswith(".") for part in parts):
            continue
        prompt = read_file(path)
        if prompt.name in found:
            raise FileError(f"{path}: the prompt '{prompt.name}' is also in {found[prompt.name].path}")
        found[prompt.name] = prompt
    return [found[name] for name in sorted(found)]


def read_file(path: Path) -> PromptFile:
    """Raises FileError."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise FileError(f"{path}: larger than {MAX_FILE} bytes")
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: {reason_of(error)}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise FileError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise FileError(f"{path}: a prompt is a mapping with a `name`")
    labels, teams = value.get("labels", []), value.get("teams")
    for name, given in (("labels", labels), ("teams", teams if teams is not None else [])):
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            raise FileError(f"{path}: `{name}` is a list of names")
    description = value.get("description")
    if description is not None and not isinstance(description, str):
        raise FileError(f"{path}: `description` is a text")
    try:
        spec = PromptSpec.model_validate({name: each for name, each in value.items() if name not in _OWN})
        check_version(spec)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FileError(
            f"{path}: {where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}"
        ) from None
    except SpecError as error:
        raise FileError(f"{path}: {error.param}: {error}") from None
    return PromptFile(
        path,
        value["name"],
        spec,
        description,
        None if teams is None else tuple(sorted(set(teams))),
        "teams" in value,
        tuple(dict.fromkeys(labels)),
    )


def make_plan(files: Sequence[PromptFile], states: Sequence[PromptState], *, prune: bool) -> Plan:
    """What has to change so that the platform has what the files say. Applied twice, it changes nothing."""
    known = {state.name: state for state in states}
    steps: list[Step] = []
    notes: list[str] = []
    unchanged = 0
    for file in files:
        made = list(_steps_of(file, known.get(file.name), notes))
        steps += made
        unchanged += not made
    extra = sorted(known.keys() - {file.name for file in files})
    if prune:
        steps += [Step(name, "delete", f"delete the prompt and its {_versions(known[name])}") for name in extra]
    return Plan(tuple(steps), tuple(notes), unchanged, () if prune else tuple(extra))


def _steps_of(file: PromptFile, state: PromptState | None, notes: list[str]) -> Iterator[Step]:
    if state is None:
        text = "create" + (f", labelled {', '.join(file.labels)}" if file.labels else "")
        names = "/dev/null", f"{file.name}@1"
        yield Step(file.name, "create", text, file, diff_text({}, file.content, names=names))
        return
    latest = int(state.object["latest_version"])
    changed = []
    if file.description is not None and file.description != state.object["description"]:
        changed.append("description")
    if file.says_teams and (None if file.teams is None else list(file.teams)) != state.object["teams"]:
        changed.append("teams")
    if changed:
        yield Step(file.name, "update", f"update {' and '.join(changed)}", file)
    if state.object["archived"] is not None:
        notes.append(f"{file.name}: archived; unarchive it to change its versions and labels")
        return
    if file.spec.digest != state.version["digest"]:
        names = f"{file.name}@{latest}", f"{file.name}@{latest + 1}"
        yield Step(
            file.name,
            "version",
            f"version {latest + 1}",
            file,
            diff_text(state.spec.content(), file.content, names=names),
        )
        latest += 1
    for label in file.labels:
        target = state.object["labels"].get(label)
        if target is not None and target.get("version") == latest:
            continue
        if target is not None and "split" in target:
            shares = ", ".join(f"{each['version']}: {each['weight']:g}" for each in target["split"])
            notes.append(f"{file.name}: the label {label} is split ({shares}); it is left alone")
            continue
        before = "" if target is None else f" (from {target['version']})"
        yield Step(file.name, "label", f"label {label}: version {latest}{before}", file, label=label)


def _versions(state: PromptState) -> str:
    return f"versions, the newest of them {state.object['latest_version']}"


def file_text(state: PromptState) -> str:
    """The file of a prompt: its newest version, and the labels that point at it alone."""
    shown = state.object
    labels = [name for name, target in shown["labels"].items() if target.get("version") == shown["latest_version"]]
    own: dict[str, Any] = {"name": shown["name"]}
    if shown["description"]:
        own["description"] = shown["description"]
    if shown["teams"] is not None:
        own["teams"] = shown["teams"]
    if labels:
        own["labels"] = sorted(labels)
    return to_yaml({**own, **state.spec.content()})


def path_of(folder: Path, name: str) -> Path:
    """`a/b` is the file `a/b.yaml`. Raises FileError for a name that leads elsewhere."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise FileError(f"{name!r} is no name of a prompt")
    path = folder.joinpath(*name.split("/"))
    return path.with_name(path.name + ".yaml")
