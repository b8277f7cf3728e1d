"""Forms with a file: in any cut of the stream, and what is refused."""

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.errors import APIError, BadRequestError, UnsupportedMediaTypeError
from quarterdeck.gateway.http.multipart import MAX_PARTS, Form, read_form

TYPE = b"multipart/form-data; boundary=xyz"


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    return b'--xyz\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (
        name.encode(),
        named.encode(),
        content,
    )


END = b"--xyz--\r\n"


async def read(*pieces: bytes, content_type: bytes | None = TYPE) -> tuple[str, bytes, dict[str, str]]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            if piece:
                yield piece

    async def take(filename: str, file: AsyncIterator[bytes], form: Form) -> tuple[str, bytes, dict[str, str]]:
        return filename, b"".join([piece async for piece in file]), form.fields

    return await read_form(body(), content_type, "file", take)


@given(
    content=st.binary(max_size=300) | st.sampled_from([b"\r\n--xy", b"\r\n--xyz ", b"--xyz--", b"\r", b"\r\n--"]),
    cuts=st.lists(st.integers(0, 600)),
    is_first=st.booleans(),
)
async def test_any_cut_of_the_stream_gives_the_same_form(content: bytes, cuts: list[int], is_first: bool) -> None:
    if b"\r\n--xyz" in content:
        content = content.replace(b"xyz", b"abc")
    file, purpose = part("file", content, "a.bin"), part("purpose", b"batch")
    whole = (file + purpose if is_first else purpose + file) + END
    at = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    found = await read(*(whole[start:end] for start, end in itertools.pairwise(at)))
    assert found == ("a.bin", content, {"purpose": "batch"})


async def test_names_of_files_are_utf8() -> None:
    assert (await read(part("file", b"x", "Überblick 日本.txt") + END))[0] == "Überblick 日本.txt"
    assert (await read(part("file", b"x", "a%22b.txt") + END))[0] == 'a"b.txt'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "ends before"),
        (part("file", b"x", "a"), "ends before"),
        (part("file", b"x", "a") + b"--xy", "ends before"),
        (b"nonsense", "malformed"),
        (b"--xyz\r\nContent-Disposition: attachment\r\n\r\nx\r\n" + END, "Content-Disposition"),
        (b"--xyz\r\nX: y\r\n\r\nx\r\n" + END, "Content-Disposition"),
        (b"--xyz\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END, "Content-Disposition"),
        (part("purpose", b"batch") + END, "Missing required parameter: 'file'"),
        (part("file", b"no file but a field") + END, "Missing required parameter: 'file'"),
        (part("file", b"x", "a") + part("file", b"y", "b") + END, "Only one"),
        (part("a", b"x") + part("a", b"y") + part("file", b"x", "a") + END, "repeated"),
        (part("a", b"\xff") + part("file", b"x", "a") + END, "UTF-8"),
        (part("a", b"x" * 20_000) + part("file", b"x", "a") + END, "too large"),
    ],
)
async def test_a_wrong_form_is_a_bad_request(body: bytes, reason: str) -> None:
    with pytest.raises(BadRequestError, match=reason):
        await read(body)


@pytest.mark.parametrize(
    "content_type", [None, b"", b"application/json", b"multipart/mixed; boundary=xyz", b"text/plain; boundary=xyz"]
)
async def test_other_types_are_refused(content_type: bytes | None) -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        await read(b"x", content_type=content_type)


@pytest.mark.parametrize("content_type", [b"multipart/form-data", b"multipart/form-data; boundary=" + b"x" * 300])
async def test_a_form_needs_a_boundary(content_type: bytes) -> None:
    with pytest.raises(BadRequestError, match="boundary"):
        await read(part("file", b"x", "a") + END, content_type=content_type)


async def test_bombs_are_refused_before_they_are_read() -> None:
    read_bytes = 0

    async def fields() -> AsyncIterator[bytes]:
        nonlocal read_bytes
        for index in range(100_000):
            piece = part(f"f{index}", b"x")
            read_bytes += len(piece)
            yield piece

    async def header() -> AsyncIterator[bytes]:
        nonlocal read_bytes
        yield b"--xyz\r\nContent-Disposition: form-data; name="
        while True:
            read_bytes += 1024
            yield b"x" * 1024

    async def many_headers() -> AsyncIterator[bytes]:
        nonlocal read_bytes
        yield b"--xyz\r\n"
        while True:
            read_bytes += 8
            yield b"X-A: b\r\n"

    async def take(filename: str, file: AsyncIterator[bytes], form: Form) -> None:
        raise AssertionError("there is no file")

    for bomb in (fields, header, many_headers):
        read_bytes = 0
        with pytest.raises(APIError) as caught:
            await read_form(bomb(), TYPE, "file", take)
        assert caught.value.status == 400
        assert read_bytes < 64 * 1024
    assert MAX_PARTS < 100
