"""Forms with a file: in any cut of the stream, and what is refused."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.errors import APIError, BadRequestError, UnsupportedMediaTypeError
from quarterdeck.gateway.http.multipart import MAX_PARTS, MAX_WHOLE_PARTS, SLICE_BYTES, Form, read_form, read_whole_form
from quarterdeck.protocol.forms import FormPart, encode_form

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


names = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=20)
files = st.builds(FormPart, names, st.binary(max_size=300), names, st.sampled_from(["", "audio/wav", "image/png; x=1"]))
fields = st.builds(FormPart, names, st.text(st.characters(codec="utf-8"), max_size=30).map(str.encode))


@given(st.lists(files | fields, max_size=5, unique_by=lambda part: part.name))
async def test_a_form_that_was_encoded_is_read_as_it_was(parts: list[FormPart]) -> None:
    content_type, body = encode_form(parts)
    expected = [
        replace(part, name=_plain(part.name), filename=part.filename and _plain(part.filename)) for part in parts
    ]
    if len({part.name for part in expected}) == len(expected):
        assert await read_whole_form(body, content_type) == expected


def _plain(name: str) -> str:
    """A name that has a browser's escape in it is read as what that stands for."""
    return name.replace("%22", '"').replace("\\", "%5C")


async def test_a_file_larger_than_a_slice_is_whole() -> None:
    data = bytes(range(256)) * (SLICE_BYTES // 100)
    content_type, body = encode_form([FormPart("file", data, "a.bin")])
    assert (await read_whole_form(body, content_type))[0].data == data


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (part("a", b"1") + part("a", b"2") + END, "invalid_value"),
        (part("a", b"\xff") + END, "invalid_value"),
        (part("a", b"x" * 300_000) + END, "invalid_value"),
        (part("a[]", b"1") * (MAX_WHOLE_PARTS + 1) + END, "invalid_value"),
        (part("a", b"1"), "invalid_multipart"),
        (b"", "invalid_multipart"),
    ],
)
async def test_a_whole_form_is_bounded(body: bytes, code: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        await read_whole_form(body, TYPE)
    assert raised.value.code == code


async def test_a_list_may_have_several_values() -> None:
    found = await read_whole_form(part("a[]", b"1") + part("a[]", b"2") + END, TYPE)
    assert [each.text for each in found] == ["1", "2"]
