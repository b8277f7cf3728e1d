"""pydantic's list of problems as one sentence about one field. Pure.

vLLM sends all of them as text: a message's `"name": null` is 14 lines, one or more for each type that a message may
have. Of a union's members the one is taken that the value was meant for: it has no problem with the `type` or `role`.
"""

import re
from collections.abc import Iterable, Sequence

import msgspec

MAX_TEXT = 65_536
"""Bytes that are searched for problems. vLLM repeats the value at fault with each."""

_HEAD = re.compile(r"\d+ validation errors?:\n")
_STRING = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_PROBLEM = re.compile(
    rf"^\s*{{'type': '(?P<type>\w+)', 'loc': \((?P<loc>(?:{_STRING}|\d+|[, ])*)\), 'msg': (?P<msg>{_STRING})", re.M
)
_STEP = re.compile(rf"(?P<index>\d+)|{_STRING}")
_ESCAPED = re.compile(r"\\(.)")
_KINDS = frozenset(
    {"str", "int", "float", "bool", "bytes", "list", "dict", "tuple", "set", "union", "tagged-union", "nullable"}
)
_MARKER = re.compile(r"[A-Z]\w*|.*[\[\](){}].*")
"""Steps that are a type of pydantic's and no field: a class, `list[str]`, `function-wrap[…]`."""
_DISCRIMINATORS = ("role", "type")
"""Fields by which a union's members differ."""

Step = str | int


class Problem(msgspec.Struct, frozen=True):
    """One of pydantic's problems."""

    type: str
    loc: tuple[Step, ...]
    message: str

    @property
    def path(self) -> tuple[Step, ...]:
        """The field in the request."""
        steps = self.loc[1:] if self.loc[:1] == ("body",) else self.loc
        return tuple(step for step in steps if not _is_marker(step))

    @property
    def branch(self) -> tuple[Step, ...]:
        """The member of a union that was tried."""
        at = next((at for at, step in enumerate(self.loc) if _is_marker(step) and step not in _KINDS), -1)
        return self.loc[: at + 1]


class Sentence(msgspec.Struct, frozen=True):
    """What the client is sent. `code` None: the engine's."""

    message: str
    param: str | None
    code: str | None


def from_text(message: str) -> Sentence | None:
    """Of vLLM's text. None: it is no list of problems."""
    if not _HEAD.match(message):
        return None
    found = _PROBLEM.finditer(message[:MAX_TEXT])
    return describe([Problem(each["type"], tuple(_steps(each["loc"])), _unquoted(each["msg"])) for each in found])


def describe(problems: Sequence[Problem]) -> Sentence | None:
    """The one problem that the client should hear of. None: there are none."""
    if not problems:
        return None
    foreign = {
        each.branch
        for each in problems
        if each.type == "literal_error" and each.path and each.path[-1] in _DISCRIMINATORS
    }
    meant = [each for each in problems if each.branch not in foreign] or problems
    size = {branch: sum(each.branch == branch for each in meant) for branch in {each.branch for each in meant}}
    return _sentence(min(meant, key=lambda each: size[each.branch]))


def _sentence(problem: Problem) -> Sentence:
    param = _dotted(problem.path) or None
    reason = problem.message.removeprefix("Value error, ").rstrip(".")
    if problem.type == "json_invalid":
        return Sentence(f"We could not parse the JSON body of your request: {reason}.", None, "invalid_json")
    if param is None:
        return Sentence(f"{reason}.", None, None)
    if problem.type == "missing":
        return Sentence(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    is_type = problem.type.endswith(("_type", "_parsing"))
    reason = reason[:1].lower() + reason[1:]
    return Sentence(
        f"Invalid {'type' if is_type else 'value'} for '{param}': {reason}.",
        param,
        "invalid_type" if is_type else "invalid_value",
    )


def _dotted(path: Sequence[Step]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _is_marker(step: Step) -> bool:
    return isinstance(step, str) and (step in _KINDS or _MARKER.fullmatch(step) is not None)


def _steps(loc: str) -> Iterable[Step]:
    for step in _STEP.finditer(loc):
        yield int(step["index"]) if step["index"] else _unquoted(step[0])


def _unquoted(text: str) -> str:
    return _ESCAPED.sub(r"\1", text[1:-1])
