"""Langfuse's templates and ours: `{{name}}` is a variable in both, all else is text there and Jinja here.

What means the same in both is translated, and what does not is an UnmappedError that says why. Pure.
"""

import re
from functools import cache

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError

from quarterdeck.templating.errors import TemplateError
from quarterdeck.templating.language import MAX_NODES, Environment, parse

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_LIKE_A_NAME = re.compile(r"[\w.\- ]+")
_OPENING = re.compile(r"\{\{|\{%|\{#")
_DEPENDENCY = "@@@langfusePrompt:"
_CONSTRUCTS = {
    nodes.For: "a loop",
    nodes.If: "a condition",
    nodes.CondExpr: "a condition",
    nodes.Filter: "a filter",
    nodes.Getitem: "a subscript",
    nodes.Compare: "a comparison",
}


class UnmappedError(ValueError):
    """Something that the other side has no equal for. The message says what."""


def from_mustache(text: str) -> str:
    """Langfuse's text as a template of ours that renders the same. Raises UnmappedError."""
    if _DEPENDENCY in text:
        raise UnmappedError("it includes another prompt (@@@langfusePrompt:…@@@)")
    parts, at = [], 0
    while (found := _OPENING.search(text, at)) is not None:
        begin = found.start()
        parts.append(text[at:begin])
        if found[0] != "{{" or (end := text.find("}}", begin)) < 0:
            parts.append(_literal(found[0]))
            at = found.end()
            continue
        inside = text[begin + 2 : end]
        if "{" in inside:
            raise UnmappedError(f"braces inside braces: {text[begin : end + 2][:60]!r}")
        name = inside.strip()
        if _NAME.fullmatch(name):
            parts.append(_variable(name, text[begin : end + 2]))
        elif _LIKE_A_NAME.fullmatch(name):
            raise UnmappedError(f"{name[:60]!r} can't be the name of a variable here")
        else:
            parts.append(_literal("{{") + inside + "}}")
        at = end + 2
    parts.append(text[at:])
    return "".join(parts)


def to_mustache(source: str) -> str:
    """A template of ours as Langfuse's text. Raises UnmappedError."""
    if _DEPENDENCY in source:
        raise UnmappedError("its text is a reference to another prompt at Langfuse (@@@langfusePrompt:…@@@)")
    pieces = _pieces(source)
    try:
        if from_mustache(source) == source:
            return source  # byte for byte, with its white space
    except UnmappedError:
        pass  # braces that are text: written below as Langfuse has them
    text = "".join(f"{{{{{value}}}}}" if is_name else value for is_name, value in pieces)
    try:
        is_same = _pieces(from_mustache(text)) == pieces
    except UnmappedError:
        is_same = False
    if not is_same:
        raise UnmappedError("braces of its text would be variables at Langfuse")
    return text


def _pieces(source: str) -> list[tuple[bool, str]]:
    """Texts (False) and names of variables (True), one after the other. Raises UnmappedError."""
    try:
        if any(kind.startswith("comment") for _, kind, _ in _environment().lex(source)):
            raise UnmappedError("it has a comment")
        body = _environment().parse(source).body
    except TemplateSyntaxError as error:
        raise UnmappedError(f"line {error.lineno}: {error.message}") from None
    found: list[tuple[bool, str]] = []
    for node in body:
        for each in node.nodes if isinstance(node, nodes.Output) else [node]:
            if isinstance(each, nodes.Name):
                found.append((True, each.name))
                continue
            if isinstance(each, nodes.TemplateData):
                text = each.data
            elif isinstance(each, nodes.Const) and isinstance(each.value, str):
                text = each.value
            else:
                words = next((words for kind, words in _CONSTRUCTS.items() if isinstance(each, kind)), "more than text")
                raise UnmappedError(f"line {each.lineno}: Langfuse has variables only, and this is {words}")
            if found and not found[-1][0]:
                found[-1] = (False, found[-1][1] + text)
            elif text:
                found.append((False, text))
    return found


def _variable(name: str, source: str) -> str:
    try:
        names = parse(_environment(), source, MAX_NODES).names
    except TemplateError:
        names = frozenset()
    if names != {name}:
        raise UnmappedError(f"{name!r} can't be the name of a variable here")
    return source


def _literal(text: str) -> str:
    return "{{ '" + text + "' }}"


@cache
def _environment() -> Environment:
    return Environment()
