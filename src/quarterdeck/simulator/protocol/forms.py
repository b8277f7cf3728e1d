"""Forms with files, as the simulated engine reads them: the fields and the files by name."""

from dataclasses import dataclass, field
from email.message import Message

from quarterdeck.simulator.client_connection import ClientConnection
from quarterdeck.simulator.errors import invalid_request

FORM = "multipart/form-data"


@dataclass(slots=True)
class Form:
    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[bytes]] = field(default_factory=dict)

    def is_on(self, name: str) -> bool:
        return self.fields.get(name, "").lower() in ("true", "1")

    def number(self, name: str, default: int) -> int:
        """Raises VLLMError."""
        text = self.fields.get(name) or str(default)
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise invalid_request(f"1 validation error:\n  {name}: Input should be a valid integer", name)
        return int(text)


async def receive_form(connection: ClientConnection, limit: int) -> Form:
    """Raises VLLMError."""
    body = await connection.body(limit, FORM)
    boundary = _options(connection.header(b"content-type") or "").get_param("boundary")
    form = Form()
    pieces = (b"\r\n" + body).split(b"\r\n--" + str(boundary).encode())
    if boundary is None or len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise invalid_request("There was an error parsing the body")
    for piece in pieces[1:-1]:
        head, _, data = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = [line.partition(":") for line in head.decode("utf-8", "replace").split("\r\n")]
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        options = _options(headers.get("content-disposition", ""))
        name = str(options.get_param("name", ""))
        if options.get_param("filename") is None:
            form.fields[name] = data.decode("utf-8", "replace")
        else:
            form.files.setdefault(name.removesuffix("[]"), []).append(data)
    return form


def _options(header: str) -> Message:
    message = Message()
    message["content-type"] = header
    return message
