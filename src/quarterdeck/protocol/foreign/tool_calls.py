"""Tool calls of other servers as OpenAI's: each with an index, its id, type and name once, its arguments as text. Pure.

Some servers send each call whole and without an index (Gemini), all with index 0, indices from 1, no ids, everything
again in each fragment, arguments as an object or none at all.
"""

import secrets
from typing import Any

import msgspec

from quarterdeck.protocol.foreign import json_values

NO_ARGUMENTS = "{}"
"""Of a call without any: clients parse them."""


class _Call(msgspec.Struct):
    """What is known of one call of a stream."""

    id: str
    theirs: str | None
    """Their id, where they sent one."""
    name: str = ""
    arguments: list[str] = []


class ToolCalls:
    """The calls of one choice of a stream."""

    __slots__ = ("_calls", "_indices")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._indices: dict[int, int] = {}
        """Ours by theirs."""

    def __bool__(self) -> bool:
        return bool(self._calls)

    def fragments(self, found: Any) -> list[dict[str, Any]]:
        """The fragments of a delta."""
        return [self._fragment(flat_call(each)) for each in as_list(found) if isinstance(each, dict)]

    def missing(self) -> list[dict[str, Any]]:
        """Fragments for what the calls lack at the end."""
        lacking = [at for at, call in enumerate(self._calls) if not any(call.arguments)]
        for at in lacking:
            self._calls[at].arguments.append(NO_ARGUMENTS)
        return [{"index": at, "function": {"arguments": NO_ARGUMENTS}} for at in lacking]

    def _fragment(self, call: dict[str, Any]) -> dict[str, Any]:
        theirs = call.get("id") if isinstance(call.get("id"), str) and call["id"] else None
        function = dict(call["function"]) if isinstance(call.get("function"), dict) else {}
        name = function.get("name") if isinstance(function.get("name"), str) else ""
        index = self._index(call.get("index"), theirs, name or "")
        is_new = index == len(self._calls)
        if is_new:
            self._calls.append(_Call(theirs or new_id(), theirs))
            call["id"], call["type"] = self._calls[index].id, call.get("type") or "function"
        else:
            call.pop("id", None)
            call.pop("type", None)
        known = self._calls[index]
        if not name or (known.name and name == known.name):  # repeated, or nothing
            function.pop("name", None)
        else:
            known.name += name
        if "arguments" in function:
            function["arguments"] = arguments_text(function["arguments"])
            known.arguments.append(function["arguments"])
        elif is_new:
            function["arguments"] = ""
        call["function"], call["index"] = function, index
        return call

    def _index(self, theirs: Any, call_id: str | None, name: str) -> int:
        """Ours for their index and id; that of a new call is the number of calls."""
        calls = self._calls
        if call_id is not None:
            for at, call in enumerate(calls):
                if call.theirs == call_id:
                    return at
        at = self._indices.get(theirs, -1) if type(theirs) is int else len(calls) - 1
        if at < 0 or self._is_another(calls[at], call_id, name) or (call_id is not None and type(theirs) is not int):
            at = len(calls)
        if type(theirs) is int:
            self._indices[theirs] = at
        return at

    @staticmethod
    def _is_another(known: _Call, call_id: str | None, name: str) -> bool:
        """Whether a fragment under the index of a known call, but with another id, begins a call of its own."""
        if not name:
            return False
        if call_id is not None and name != known.name:
            return True
        return (call_id is not None or known.theirs is None) and _is_complete("".join(known.arguments))


def whole_calls(found: Any) -> list[dict[str, Any]]:
    """The calls of a whole message."""
    return [_whole(flat_call(each)) for each in as_list(found) if isinstance(each, dict)]


def as_list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


def flat_call(call: dict[str, Any]) -> dict[str, Any]:
    """A call whose name and arguments are in `function`."""
    call = dict(call)
    if not isinstance(call.get("function"), dict) and ("name" in call or "arguments" in call):
        call["function"] = {name: call.pop(name) for name in ("name", "arguments") if name in call}
    return call


def arguments_text(arguments: Any) -> str:
    """The arguments as OpenAI has them: JSON in a string."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else json_values.encode(arguments).decode()


def new_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _whole(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call["function"]) if isinstance(call.get("function"), dict) else {}
    function["arguments"] = arguments_text(function.get("arguments")) or NO_ARGUMENTS
    call["id"] = call["id"] if isinstance(call.get("id"), str) and call["id"] else new_id()
    call["type"] = call.get("type") or "function"
    call.pop("index", None)
    return {**call, "function": function}


def _is_complete(arguments: str) -> bool:
    """Whether these are all arguments of a call."""
    return arguments.rstrip().endswith("}") and json_values.decode(arguments.encode("utf-8", "replace")) is not (
        json_values.INVALID
    )
