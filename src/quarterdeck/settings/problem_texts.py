"""What is wrong with a value of a configuration, in words for its author instead of pydantic's. Pure."""

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from quarterdeck.settings.unknown_names import did_you_mean

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "string": "text",
    "bool": "true or false",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
}
"""By the first part of pydantic's type of error."""
_BOUNDS = {"greater_than": ">", "greater_than_equal": "≥", "less_than": "<", "less_than_equal": "≤"}
_IMPLICIT = ("_type", "_parsing", "_from_float", "_unexpected", "_attributes")


def problem_text(problem: Mapping[str, Any], shape: type[BaseModel]) -> str:
    """A problem as `ValidationError.errors` lists it, of a document with this shape."""
    kind, context = str(problem["type"]), problem.get("ctx") or {}
    if kind == "extra_forbidden":
        *where, name = problem["loc"]
        return f"unknown setting{did_you_mean(str(name), field_names(shape, where))}"
    if kind == "missing":
        return "is required"
    if kind in _BOUNDS:
        bound = next(iter(context.values()))
        bound = f"{bound:g}" if isinstance(bound, float) else bound
        return f"must be {_BOUNDS[kind]} {bound}, not {_shown(problem.get('input'))}"
    if kind in ("literal_error", "enum"):
        choices = str(context.get("expected", "")).replace("'", "")
        known = choices.replace(" or ", ", ").split(", ")
        given = problem.get("input")
        hint = did_you_mean(given, known) if isinstance(given, str) else ""
        return f"must be {choices}, not {_shown(given)}{hint}"
    for suffix in _IMPLICIT:
        wanted = _KINDS.get(kind.removesuffix(suffix))
        if kind.endswith(suffix) and wanted is not None:
            return f"must be {wanted}, not {_shown(problem.get('input'))}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    for theirs, ours in (("Input should be", "must be"), ("Input should have", "must have"), ("String should", "must")):
        if message.startswith(theirs):
            return ours + message[len(theirs) :]
    return message


def field_names(shape: Any, where: Sequence[str | int]) -> list[str]:
    """The fields of the class at `where` below `shape`; none where that is not a class of ours."""
    found: list[Any] = [shape]
    for part in where:
        found = [below for each in found for below in _below(each, part)]
    names = {name for each in found if _is_model(each) for name in each.model_fields}
    return sorted(names)


def _below(shape: Any, part: str | int) -> list[Any]:
    if _is_model(shape):
        field = shape.model_fields.get(str(part))
        return [] if field is None else _plain(field.annotation)
    arguments = [each for each in typing.get_args(shape) if each is not Ellipsis]
    return _plain(arguments[-1]) if arguments else []  # the items of a list, the values of a mapping


def _plain(annotation: Any) -> list[Any]:
    """The alternatives of a union, without Annotated and None."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _plain(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [each for argument in typing.get_args(annotation) for each in _plain(argument)]
    return [] if annotation is type(None) else [annotation]


def _is_model(shape: Any) -> bool:
    return isinstance(shape, type) and issubclass(shape, BaseModel)


def _shown(value: Any) -> str:
    """The value as the file may have it, short. Nothing of a mapping or list is repeated: it may hold a secret."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = str(value)
    return repr(text if len(text) <= 40 else f"{text[:39]}…") if isinstance(value, str) else text
