"""The values of a prompt's variables: checked against their declaration, with defaults where none are given."""

from collections.abc import Mapping, Set
from typing import Any

from quarterdeck.settings.prompts import PromptVariable

_KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "messages": (list,),
}
_NAMES = {str: "a string", bool: "a boolean", int: "an integer", float: "a number", list: "an array", dict: "an object"}
_ARTICLES = {"integer": "an integer", "array": "an array", "object": "an object", "messages": "a list of messages"}
_MAX_NAMED = 10


class VariablesError(ValueError):
    """The values don't fit the declaration. `names`: the variables at fault, the first one first."""

    def __init__(self, message: str, names: list[str]) -> None:
        super().__init__(message)
        self.names = names


class Declaration:
    """The variables of a version. Checking costs about a microsecond for each."""

    __slots__ = ("_defaults", "_required", "_variables", "names")

    def __init__(self, variables: Mapping[str, PromptVariable], used: Set[str], required: Set[str]) -> None:
        """`used`: the names that templates read. One that is not declared is a string, which each request must give
        if it is `required`."""
        declared = {**{name: PromptVariable() for name in sorted(used - variables.keys())}, **variables}
        self._variables = {
            name: (_KINDS[each.type], each.type, None if each.enum is None else tuple(each.enum))
            for name, each in declared.items()
        }
        self._required = frozenset(
            name for name, each in declared.items() if each.is_required and (name in variables or name in required)
        )
        self._defaults = {name: each.default for name, each in declared.items() if not each.is_required}
        self.names = tuple(declared)

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The value of each variable. Raises VariablesError that names every one at fault."""
        if not self._required <= given.keys() or not given.keys() <= self._variables.keys():
            raise self._error(given)
        for name, value in given.items():
            kinds, kind, enum = self._variables[name]
            if (type(value) not in kinds or kind == "messages" or enum is not None) and self._fault(name, value):
                raise self._error(given)
        return {**self._defaults, **given}

    def _error(self, given: Mapping[str, Any]) -> VariablesError:
        missing = sorted(self._required - given.keys())
        unknown = sorted(given.keys() - self._variables.keys())
        wrong = {
            name: fault
            for name, value in given.items()
            if name in self._variables and (fault := self._fault(name, value))
        }
        parts = []
        if missing:
            parts.append(f"missing {_listed(missing)}")
        if unknown:
            parts.append(f"unknown {_listed(unknown)}")
        parts += [f"'{name}' {fault}" for name, fault in list(wrong.items())[:_MAX_NAMED]]
        return VariablesError("; ".join(parts), [*missing, *unknown, *wrong])

    def _fault(self, name: str, value: Any) -> str | None:
        kinds, kind, enum = self._variables[name]
        if value is None and name in self._defaults and self._defaults[name] is None:
            return None
        if type(value) not in kinds:
            got = "null" if value is None else _NAMES.get(type(value), "another type")
            return f"must be {_ARTICLES.get(kind, f'a {kind}')}, got {got}"
        if kind == "messages" and not all(type(each) is dict and type(each.get("role")) is str for each in value):
            return "must be a list of messages, each an object with a role"
        if enum is not None and not any(type(value) is type(each) and value == each for each in enum):
            return f"must be one of {', '.join(repr(each) for each in enum[:_MAX_NAMED])}"
        return None


def fault_of_default(variable: PromptVariable) -> str | None:
    """Why a declared default is no value of the variable. None: it is one, or there is none."""
    if variable.is_required or variable.default is None:
        return None
    try:
        Declaration({"x": variable}, set(), set()).check({"x": variable.default})
    except VariablesError as error:
        return str(error).removeprefix("'x' ")
    return None


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name[:64]}'" for name in names[:_MAX_NAMED])
    return shown if len(names) <= _MAX_NAMED else f"{shown} and {len(names) - _MAX_NAMED} more"
