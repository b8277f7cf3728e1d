"""The filters and tests of templates: all that a template can call.

They replace Jinja's own. Each takes text, numbers, lists and objects of JSON only, counts what it reads, and checks the
size of a result before it is made: `x|tojson|tojson|…` doubles its text each time.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from jinja2 import Undefined, pass_context
from jinja2.exceptions import UndefinedError
from jinja2.runtime import Context

from quarterdeck.templating.allowance import MAX_BYTES, Allowance
from quarterdeck.templating.errors import RenderError

ALLOWANCE = "_allowance"
"""The variable that holds the rendering's Allowance. A template can't name it: its names don't begin with `_`."""

Scalar = str | int | float | bool | None


def allowance_of(context: Context) -> Allowance:
    found: Allowance = context.vars[ALLOWANCE] if ALLOWANCE in context.vars else context.parent[ALLOWANCE]
    return found


def _text(context: Context, value: Any) -> str:
    """The text of a value as it stands in the output: text as it is, null as nothing, all else as JSON."""
    if type(value) is str:
        allowance_of(context).read(len(value))
        return value
    if value is None:
        return ""
    return _json(context, value)


def _json(context: Context, value: Any, *, indent: int = 0) -> str:
    _defined(value)
    if isinstance(value, list | tuple | dict):
        _check_json(allowance_of(context), value, indent)
    encoded = msgspec.json.encode(value)
    if indent:
        encoded = msgspec.json.format(encoded, indent=indent)
    allowance_of(context).check_size(len(encoded))
    return encoded.decode()


def _check_json(allowance: Allowance, value: Any, indent: int) -> None:
    """Raise RenderError where a value's JSON is larger than any output, before it is made: a list can hold one text a
    thousand times, and indentation multiplies the elements of a deep list by their depth."""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    size = count = 0
    while waiting:
        container, depth = waiting.pop()
        size += len(container) * (1 + indent * depth)
        count += 1 + len(container) // 8
        each: Any
        for each in container:
            if isinstance(each, str):
                size += len(each)
            if isinstance(container, dict):
                each = container[each]
                if isinstance(each, str):
                    size += len(each)
            if isinstance(each, list | tuple | dict):
                waiting.append((each, depth + 1))
        if count >= _COUNTED_AT_ONCE or size >= MAX_BYTES:
            allowance.work(count)
            count = 0
            if size > MAX_BYTES:
                allowance.check_size(size)
    allowance.work(count)


_COUNTED_AT_ONCE = 1000


def _defined(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # StrictUndefined raises, and names what is missing
    return value


def _list(context: Context, value: Any, name: str) -> list[Any]:
    _defined(value)
    if type(value) is not list:
        raise RenderError(f"`{name}` needs a list, got {kind_of(value)}")
    allowance_of(context).work(len(value))
    return value


def _scalars(context: Context, value: Any, name: str) -> list[Any]:
    found = _list(context, value, name)
    for each in found:
        if isinstance(each, dict | list):
            raise RenderError(f"`{name}` needs a list of texts or numbers")
        if type(each) is str:
            allowance_of(context).read(len(each))
    return found


def kind_of(value: Any) -> str:
    """JSON's name for a value's type, with an article."""
    if isinstance(value, Undefined):
        return "nothing"
    kinds = {str: "a string", bool: "a boolean", int: "an integer", float: "a number", list: "an array"}
    return "null" if value is None else kinds.get(type(value), "an object")


@pass_context
def finalize(context: Context, value: Any) -> str:
    """Applied to each value that is written."""
    return _text(context, value)


@pass_context
def iterate(context: Context, value: Any, weight: int) -> Any:
    """The elements of a loop, each counted with the nodes of the loop's body. An object's are its keys."""
    _defined(value)
    if not isinstance(value, list | tuple | dict):
        raise RenderError(f"`for` needs a list, got {kind_of(value)}")
    allowance = allowance_of(context)

    def elements() -> Any:
        for each in value:
            allowance.work(weight)
            yield each

    return elements()


@pass_context
def compare(context: Context, left: Any, operator: str, right: Any) -> bool:
    """`left operator right`, with Jinja's names of operators."""
    _defined(left)
    _defined(right)
    if operator in ("in", "notin"):
        return _is_in(context, left, right) is (operator == "in")
    if isinstance(left, list | dict | tuple) or isinstance(right, list | dict | tuple):
        raise RenderError("lists and objects can't be compared")
    allowance_of(context).read(_length(left) + _length(right))
    try:
        return _OPERATORS[operator](left, right)
    except TypeError:
        raise RenderError(f"{kind_of(left)} can't be compared with {kind_of(right)}") from None


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: bool(a == b),
    "ne": lambda a, b: bool(a != b),
    "lt": lambda a, b: bool(a < b),
    "lteq": lambda a, b: bool(a <= b),
    "gt": lambda a, b: bool(a > b),
    "gteq": lambda a, b: bool(a >= b),
}


def _length(value: Any) -> int:
    return len(value) if type(value) is str else 0


def _is_in(context: Context, left: Any, right: Any) -> bool:
    allowance = allowance_of(context)
    if isinstance(left, list | dict):
        raise RenderError("lists and objects can't be compared")
    if type(right) is str:
        if type(left) is not str:
            raise RenderError(f"`in` a string needs a string, got {kind_of(left)}")
        allowance.read(len(left) + len(right))
        return left in right
    if isinstance(right, dict):
        allowance.read(_length(left))
        return left in right
    if isinstance(right, list | tuple):
        allowance.work(len(right) * (1 + _length(left) // 64))
        return left in right
    raise RenderError(f"`in` needs a string, a list or an object, got {kind_of(right)}")


@pass_context
def upper(context: Context, value: Any) -> str:
    return _text(context, value).upper()


@pass_context
def lower(context: Context, value: Any) -> str:
    return _text(context, value).lower()


@pass_context
def capitalize(context: Context, value: Any) -> str:
    return _text(context, value).capitalize()


@pass_context
def title(context: Context, value: Any) -> str:
    return _text(context, value).title()


@pass_context
def trim(context: Context, value: Any) -> str:
    return _text(context, value).strip()


@pass_context
def replace(context: Context, value: Any, old: str, new: str) -> str:
    text, old, new = _text(context, value), _text(context, old), _text(context, new)
    if not old:
        raise RenderError("`replace` needs a text to search for")
    allowance_of(context).check_size(len(text) + text.count(old) * max(0, len(new) - len(old)))
    return text.replace(old, new)


@pass_context
def truncate(context: Context, value: Any, length: int = 255, end: str = "…") -> str:
    """At most `length` characters, with `end` where something was cut off."""
    text, end = _text(context, value), _text(context, end)
    length = _count(length, "truncate")
    return text if len(text) <= length else text[: max(0, length - len(end))] + end[:length]


@pass_context
def indent(context: Context, value: Any, width: int = 4, first: bool = False) -> str:
    """Spaces before each line that has text; before the first one with `first`."""
    text, margin = _text(context, value), _count(width, "indent")
    allowance_of(context).check_size(len(text) + (text.count("\n") + 1) * margin)
    head, *rest = text.split("\n")
    lines = [" " * margin + line if line else line for line in rest]
    return "\n".join([" " * margin + head if first and head else head, *lines])


@pass_context
def join(context: Context, value: Any, separator: str = "") -> str:
    separator = _text(context, separator)
    texts = [_text(context, each) for each in _list(context, value, "join")]
    allowance_of(context).check_size(sum(map(len, texts)) + len(texts) * len(separator))
    return separator.join(texts)


@pass_context
def tojson(context: Context, value: Any, indent: int = 0) -> str:
    return _json(context, value, indent=min(_count(indent, "tojson"), 8))


@pass_context
def length(context: Context, value: Any) -> int:
    _defined(value)
    if not isinstance(value, str | list | dict):
        raise RenderError(f"`length` needs a string, a list or an object, got {kind_of(value)}")
    return len(value)


@pass_context
def first(context: Context, value: Any) -> Any:
    return _element(context, value, 0, "first")


@pass_context
def last(context: Context, value: Any) -> Any:
    return _element(context, value, -1, "last")


def _element(context: Context, value: Any, at: int, name: str) -> Any:
    found = _list(context, value, name)
    if not found:
        raise RenderError(f"`{name}` of an empty list")
    return found[at]


@pass_context
def default(context: Context, value: Any, replacement: Any = "", boolean: bool = False) -> Any:
    """`replacement` where the value is missing or null; with `boolean`, also where it is empty, 0 or false."""
    is_missing = isinstance(value, Undefined) or value is None or (boolean and not value)
    return replacement if is_missing else value


@pass_context
def sort(context: Context, value: Any, reverse: bool = False) -> list[Any]:
    found = _scalars(context, value, "sort")
    allowance_of(context).work(len(found) * len(found).bit_length())
    try:
        return sorted(found, reverse=bool(reverse))
    except TypeError:
        raise RenderError("`sort` needs a list of one type") from None


@pass_context
def unique(context: Context, value: Any) -> list[Any]:
    return list(dict.fromkeys(_scalars(context, value, "unique")))


@pass_context
def items(context: Context, value: Any) -> list[tuple[str, Any]]:
    """The pairs of an object, for `{% for key, value in x|items %}`."""
    _defined(value)
    if not isinstance(value, dict):
        raise RenderError(f"`items` needs an object, got {kind_of(value)}")
    allowance_of(context).work(len(value))
    return list(value.items())


def _count(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value <= 1_000_000:
        raise RenderError(f"`{name}` needs a number from 0 to 1000000")
    return value


FILTERS: Mapping[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (
        *(capitalize, default, first, indent, items, join, last, length, lower, replace, sort, title, tojson, trim),
        *(truncate, unique, upper),
    )
}
INTERNAL: Mapping[str, Callable[..., Any]] = {"_iterate": iterate, "_compare": compare}
"""What the compiler puts in. A template that names one is refused."""

TESTS: Mapping[str, Callable[[Any], bool]] = {
    "defined": lambda value: not isinstance(value, Undefined),
    "undefined": lambda value: isinstance(value, Undefined),
    "none": lambda value: value is None,
    "string": lambda value: type(value) is str,
    "number": lambda value: type(value) in (int, float),
    "boolean": lambda value: type(value) is bool,
    "sequence": lambda value: type(value) is list,
    "mapping": lambda value: type(value) is dict,
}

__all__ = ["ALLOWANCE", "FILTERS", "INTERNAL", "TESTS", "UndefinedError", "finalize", "kind_of"]
