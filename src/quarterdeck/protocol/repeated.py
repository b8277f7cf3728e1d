"""Members that an object has twice, at any depth. Pure.

Of two members of the same name most parsers take the last, some the first: what the gateway checks would not be what
the engine reads. The request's own members are compared in `requests.members`; this is for objects inside of them.
"""

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol.requests import first_repeated

MAX_DEPTH = 8
"""Of objects and lists that are compared. What engines read of a message ends four levels down; each level reads the
text once more."""

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_OBJECT, _LIST = ord("{"), ord("[")


def refuse_repeated(raw: msgspec.Raw) -> None:
    """Raises BadRequestError if an object in this JSON value, which is valid, has a member twice."""
    waiting = [(raw, MAX_DEPTH)]
    while waiting:
        each, depth = waiting.pop()
        kind = memoryview(each)[0]
        if kind == _OBJECT:
            found = _decode_object(each)
            if (name := first_repeated(each, found)) is not None:
                raise BadRequestError(f"Duplicate parameter: '{name}'.", param=name, code="duplicate_parameter")
            inner = list(found.values())
        elif kind == _LIST:
            inner = _decode_list(each)
        else:
            continue
        if depth:
            waiting += [(value, depth - 1) for value in inner if memoryview(value)[0] in (_OBJECT, _LIST)]
