"""Forms with a file (multipart/form-data), read as they arrive: fields are kept, the file is passed on in pieces.

python-multipart finds the parts. Bounded here: fields in number and size. The body itself is bounded by `BodyStream`,
and headers by the parser.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from quarterdeck.errors import BadRequestError, UnsupportedMediaTypeError
from quarterdeck.protocol.forms import FormPart

MAX_PARTS = 32
MAX_FIELD_BYTES = 16 * 1024
MAX_HEADER_BYTES = 8 * 1024
"""Of all headers of one part: a file name of 255 characters takes 1 KiB."""

MAX_TEXT_BYTES = 256 * 1024
"""Of a field of a form that is read whole: OpenAI takes prompts of 32,000 characters."""
MAX_WHOLE_PARTS = 64
SLICE_BYTES = 256 * 1024
"""Of a body in memory that are parsed at a time."""

T = TypeVar("T")
_BEGIN, _DATA, _END = "begin", "data", "end"


@dataclass(slots=True)
class Form:
    """`fields` are complete when the body was read to its end."""

    fields: dict[str, str] = field(default_factory=dict)


async def read_form(
    body: AsyncIterable[bytes],
    content_type: bytes | None,
    file_name: str,
    take: Callable[[str, AsyncIterator[bytes], Form], Awaitable[T]],
) -> T:
    """Read a form whose file has the name `file_name`: `take(its filename, its pieces, the form)` is awaited.

    The pieces end when the whole form was read, so that a field after the file is in `form.fields` by then. Raises
    BadRequestError and UnsupportedMediaTypeError.
    """
    parts = _Parts(body, _boundary(content_type))
    form = Form()
    while (part := await parts.begin()) is not None:
        if part.name == file_name and part.filename is not None:
            return await take(part.filename, _file_pieces(parts, form, file_name), form)
        await _read_field(parts, part, form)
    raise _missing(file_name)


async def read_whole_form(body: bytes, content_type: bytes | None) -> list[FormPart]:
    """The fields and files of a form that is in memory, in their order.

    Raises BadRequestError and UnsupportedMediaTypeError. A name may be repeated only where it ends with `[]`.
    """
    parts = _Parts(_slices(body), _boundary(content_type), max_parts=MAX_WHOLE_PARTS)
    found: list[FormPart] = []
    seen: set[str] = set()
    while (part := await parts.begin()) is not None:
        name = part.name[:100]
        data = b"".join([piece async for piece in parts.data()])
        if part.name in seen and not part.name.endswith("[]"):
            raise BadRequestError(f"The field '{name}' is repeated.", param=name, code="invalid_value")
        seen.add(part.name)
        if part.filename is None:
            _check_text(name, data)
        found.append(FormPart(part.name, data, part.filename, part.content_type))
    return found


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    """Other requests go on between two of them."""
    for at in range(0, len(body), SLICE_BYTES):
        yield body[at : at + SLICE_BYTES]
        await asyncio.sleep(0)


def _check_text(name: str, data: bytes) -> None:
    if len(data) > MAX_TEXT_BYTES:
        raise BadRequestError(
            f"The field '{name}' is too large: at most {MAX_TEXT_BYTES} bytes.", param=name, code="invalid_value"
        )
    try:
        data.decode()
    except UnicodeDecodeError:
        raise BadRequestError(f"The field '{name}' is not UTF-8.", param=name, code="invalid_value") from None


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    filename: str | None
    """None: it is a field."""
    content_type: str = ""


async def _file_pieces(parts: "_Parts", form: Form, file_name: str) -> AsyncIterator[bytes]:
    async for piece in parts.data():
        yield piece
    while (part := await parts.begin()) is not None:
        if part.name == file_name:
            raise BadRequestError(f"Only one '{file_name}' is taken.", param=file_name, code="invalid_value")
        await _read_field(parts, part, form)


async def _read_field(parts: "_Parts", part: _Part, form: Form) -> None:
    value = bytearray()
    async for piece in parts.data():
        value += piece
        if len(value) > MAX_FIELD_BYTES:
            raise BadRequestError(
                f"The field '{part.name[:100]}' is too large: at most {MAX_FIELD_BYTES} bytes.",
                param=part.name[:100],
                code="invalid_value",
            )
    if part.name in form.fields:
        raise BadRequestError(
            f"The field '{part.name[:100]}' is repeated.", param=part.name[:100], code="invalid_value"
        )
    try:
        form.fields[part.name] = value.decode()
    except UnicodeDecodeError:
        raise BadRequestError(
            f"The field '{part.name[:100]}' is not UTF-8.", param=part.name[:100], code="invalid_value"
        ) from None


class _Parts:
    """The parts of a body, each of which is begun and read to its end before the next."""

    def __init__(self, body: AsyncIterable[bytes], boundary: bytes, *, max_parts: int = MAX_PARTS) -> None:
        self._max_parts = max_parts
        self._body = body.__aiter__()
        self._events: deque[tuple[str, bytes | _Part]] = deque()
        self._is_complete = False
        self._count = 0
        self._header_bytes = 0
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begun,
                "on_header_field": lambda data, start, end: self._header(self._name, data[start:end]),
                "on_header_value": lambda data, start, end: self._header(self._value, data[start:end]),
                "on_header_end": self._header_ended,
                "on_headers_finished": self._headers_ended,
                "on_part_data": lambda data, start, end: self._events.append((_DATA, data[start:end])),
                "on_part_end": lambda: self._events.append((_END, b"")),
                "on_end": self._ended,
            },
        )

    async def begin(self) -> _Part | None:
        """The next part. None: there is no further one, and the body was read to its end."""
        event = await self._next()
        if event is None:
            return None
        _, part = event
        assert isinstance(part, _Part)  # noqa: S101  # narrows the type: the parser begins a part after each end
        return part

    async def data(self) -> AsyncIterator[bytes]:
        """The content of the part that was begun."""
        while (event := await self._next()) is not None and event[0] is _DATA:
            piece = event[1]
            assert isinstance(piece, bytes)  # noqa: S101  # narrows the type
            yield piece

    async def _next(self) -> tuple[str, bytes | _Part] | None:
        while not self._events:
            piece = await anext(self._body, b"")
            if not piece:
                if not self._is_complete:
                    raise _malformed("it ends before its last boundary")
                return None
            if not self._is_complete:  # what follows the last boundary means nothing (RFC 2046)
                try:
                    self._parser.write(piece)
                except FormParserError as error:
                    raise _malformed(str(error)[:200]) from None
        return self._events.popleft()

    # called by the parser

    def _part_begun(self) -> None:
        self._count += 1
        if self._count > self._max_parts:
            raise BadRequestError(f"The form has too many fields: at most {self._max_parts}.", code="invalid_value")
        self._header_bytes = 0
        self._headers = {}

    def _header(self, into: bytearray, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise BadRequestError("The headers of a form's field are too large.", code="invalid_value")
        into += data

    def _header_ended(self) -> None:
        self._headers[bytes(self._name).strip().lower()] = bytes(self._value).strip()
        self._name.clear()
        self._value.clear()

    def _headers_ended(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise _malformed("a part has no `Content-Disposition: form-data` with a name")
        self._events.append((_BEGIN, _Part(_text(name), _text(options.get(b"filename")), _type_of(self._headers))))

    def _ended(self) -> None:
        self._is_complete = True


def _type_of(headers: dict[bytes, bytes]) -> str:
    """The content type of a part. Empty: none is stated, or not one that can be sent on."""
    stated = headers.get(b"content-type", b"").decode("ascii", "replace")
    return stated if stated.isprintable() else ""


def _text(value: bytes | None) -> Any:
    """As browsers write names: UTF-8, with a quotation mark escaped (WHATWG)."""
    return None if value is None else value.decode("utf-8", "replace").replace("%22", '"')


def _boundary(content_type: bytes | None) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise UnsupportedMediaTypeError("The request must be a form with a file: `Content-Type: multipart/form-data`.")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046
        raise _malformed("its Content-Type has no boundary of 1 to 70 characters")
    return boundary


def _malformed(reason: str) -> BadRequestError:
    return BadRequestError(f"The form is malformed: {reason}.", code="invalid_multipart")


def _missing(name: str) -> BadRequestError:
    return BadRequestError(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
