"""Which bodies are refused and with which error, and that unchanged members stay byte for byte."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol import requests
from quarterdeck.protocol.requests import (
    ChatCompletionRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    Request,
)

CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]%b}'


def chat(more: bytes = b"") -> bytes:
    return CHAT % (b"," + more if more else b"")


def refused(body: bytes, kind: type[msgspec.Struct] = ChatCompletionRequest) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        requests.decode(body, kind)
        requests.members(body)
    assert caught.value.status == 400
    return caught.value


def test_the_fields_that_decide_something_are_read() -> None:
    body = chat(b'"stream":true,"stream_options":{"include_usage":true},"max_tokens":5,"temperature":1,"top_k":7')
    asked = requests.decode(body, ChatCompletionRequest)
    assert (asked.model, asked.stream, asked.max_tokens, asked.temperature) == ("m", True, 5, 1.0)
    assert asked.stream_options.include_usage is True


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b'{"messages":[]}', "model", "missing_required_parameter"),
        (b'{"model":"m"}', "messages", "missing_required_parameter"),
        (b'{"model":"m","messages":[{"content":"a"}]}', "messages[0].role", "missing_required_parameter"),
        (b'{"model":7,"messages":[]}', "model", "invalid_type"),
        (b'{"model":null,"messages":[]}', "model", "invalid_type"),
        (b'{"model":"m","messages":"Hi"}', "messages", "invalid_type"),
        (b'{"model":"m","messages":[7]}', "messages[0]", "invalid_type"),
        (b'{"model":"m","messages":[{"role":"user","content":[7]}]}', "messages[0].content[0]", "invalid_type"),
        (chat(b'"stream":"yes"'), "stream", "invalid_type"),
        (chat(b'"stream_options":{"include_usage":1}'), "stream_options.include_usage", "invalid_type"),
        (chat(b'"stream_options":[]'), "stream_options", "invalid_type"),
        (chat(b'"max_tokens":"5"'), "max_tokens", "invalid_type"),
        (chat(b'"max_tokens":5.5'), "max_tokens", "invalid_type"),
        (chat(b'"max_tokens":true'), "max_tokens", "invalid_type"),
        (chat(b'"max_tokens":-1'), "max_tokens", "integer_below_min_value"),
        (chat(b'"max_completion_tokens":-1'), "max_completion_tokens", "integer_below_min_value"),
        (chat(b'"max_tokens":' + b"9" * 30), "max_tokens", "integer_above_max_value"),
        (chat(b'"max_tokens":' + b"9" * 5000), "max_tokens", "invalid_type"),
        (chat(b'"n":2147483648'), "n", "integer_above_max_value"),
        (chat(b'"seed":9223372036854775808'), "seed", "integer_above_max_value"),
        (chat(b'"seed":-9223372036854775809'), "seed", "integer_below_min_value"),
        (chat(b'"temperature":1e999'), "temperature", "invalid_type"),
        (chat(b'"metadata":[1]'), "metadata", "invalid_type"),
        (chat(b'"tools":[7]'), "tools[0]", "invalid_type"),
        (chat(b'"response_format":"json"'), "response_format", "invalid_type"),
        (b"[]", None, "invalid_json"),
        (b"null", None, "invalid_json"),
        (b'"model"', None, "invalid_json"),
    ],
)
def test_a_wrong_field_is_named(body: bytes, param: str | None, code: str) -> None:
    error = refused(body)
    assert (error.param, error.code) == (param, code)
    assert param is None or param in error.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"model":"m"}', "Missing required parameter: 'messages'."),
        (
            chat(b'"stop":7'),
            "Invalid type for 'stop': expected one of a string or an array, but got an integer instead.",
        ),
        (chat(b'"max_tokens":"5"'), "Invalid type for 'max_tokens': expected an integer, but got a string instead."),
        (chat(b'"max_tokens":-1'), "Invalid 'max_tokens': integer below minimum value. Expected a value >= 1."),
        (chat(b'"n":2147483648'), "Invalid 'n': integer above maximum value. Expected a value <= 2147483647."),
        (chat(b'"temperature":1e999'), "Invalid type for 'temperature': number out of range."),
        (b'{"model":null}', "Invalid type for 'model': expected a string, but got null instead."),
        (b"[]", "Invalid request body: expected an object, but got an array instead."),
        (chat(b'"n":1,"n":2'), "Duplicate parameter: 'n'."),
    ],
)
def test_an_error_is_worded_as_openai_words_it(body: bytes, message: str) -> None:
    assert refused(body).message == message


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        (CompletionRequest, b'{"model":"m"}', "prompt"),
        (CompletionRequest, b'{"model":"m","prompt":7}', "prompt"),
        (EmbeddingRequest, b'{"model":"m"}', "input"),
        (EmbeddingRequest, b'{"model":"m","input":{"a":1}}', "input"),
        (DetokenizeRequest, b'{"model":"m","tokens":["a"]}', "tokens[0]"),
    ],
)
def test_each_kind_of_request_needs_its_own_fields(kind: type[Request], body: bytes, param: str) -> None:
    assert refused(body, kind).param == param


NOT_JSON = {
    "nothing": b"",
    "blanks": b" \n",
    "cut off": chat()[:-1],
    "something after it": chat() + b"x",
    "a byte order mark": b"\xef\xbb\xbf" + chat(),
    "NaN": chat(b'"temperature":NaN'),
    "NaN where nobody reads it": chat(b'"x":[NaN]'),
    "Infinity": chat(b'"x":-Infinity'),
    "a leading zero": chat(b'"x":01'),
    "a raw control character": chat(b'"x":"a\x01"'),
    "a raw newline": chat(b'"x":"a\n"'),
    "an unknown escape": chat(b'"x":"\\q"'),
    "single quotes": b"{'model':'m'}",
    "a trailing comma": chat()[:-1] + b",}",
    "UTF-16": chat().decode().encode("utf-16"),
    "a lone surrogate": chat(b'"user":"\\ud800"'),
    "a lone surrogate where nobody reads it": chat(b'"x":["\\udfff \\ud800"]'),
    "a lone surrogate in a name": chat(b'"\\ud800":1'),
    "invalid UTF-8": chat(b'"user":"\xff"'),
    "invalid UTF-8 where nobody reads it": chat(b'"x":"\xc3\x28"'),
    "invalid UTF-8 deep inside": chat(b'"x":{"y":[{"z":"\xed\xa0\x80"}]}'),
    "invalid UTF-8 in a name": chat(b'"\xff":1'),
    "an overlong form": chat(b'"x":"\xc0\xaf"'),
    "nesting without end": chat(b'"x":' + b"[" * 100_000 + b"]" * 100_000),
    "nesting without end where it is read": chat(b'"tools":[{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}]"),
    "nesting that is never closed": b'{"a":' * 200_000,
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert refused(body).code == "invalid_json"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(st.text(max_size=8), json_values, max_size=6)
styles = st.sampled_from(
    [
        {"separators": (",", ":")},
        {"separators": (",", ":"), "ensure_ascii": False},
        {},
        {"indent": 2},
        {"indent": "\t", "ensure_ascii": False},
    ]
)


@given(bodies, styles)
def test_the_members_of_any_body_are_found_as_they_were_written(value: dict[str, Any], style: dict[str, Any]) -> None:
    body = json.dumps(value, **style).encode("utf-8", "surrogatepass")
    try:
        body.decode()
    except UnicodeDecodeError:
        return
    found = requests.members(body)
    assert {name: json.loads(bytes(raw)) for name, raw in found.items()} == value
    assert all(bytes(raw) in body for raw in found.values())


@given(bodies.filter(bool), styles, st.data())
def test_a_member_that_is_given_twice_is_refused(
    value: dict[str, Any], style: dict[str, Any], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(value)))
    pairs = list(value.items())
    again = data.draw(st.sampled_from([value[name], None, 1, 12, "x"]))
    pairs.insert(data.draw(st.integers(0, len(pairs))), (name, again))
    body = _written(pairs, style)
    with pytest.raises(BadRequestError) as caught:
        requests.members(body)
    assert (caught.value.param, caught.value.code) == (name, "duplicate_parameter")


def _written(pairs: list[tuple[str, Any]], style: dict[str, Any]) -> bytes:
    """A JSON object with these members, repeated ones included: each is encoded under a unique name, then renamed."""
    text = json.dumps({f"<{number}>": value for number, (_, value) in enumerate(pairs)}, **style)
    for number, (name, _) in enumerate(pairs):
        text = text.replace(f'"<{number}>"', json.dumps(name, ensure_ascii=style.get("ensure_ascii", True)), 1)
    return text.encode()


@pytest.mark.parametrize("between", [b"", b" ", b"\n\t"])
@pytest.mark.parametrize(
    "twice",
    [
        b'"model":"a","model":"b"',
        b'"model":"a","model":"a"',
        b'"model":1,"model":12',
        b'"model":12,"model":1',
        b'"x":1,"model":"a","y":2,"model":"b"',
        b'"model":"a","mod\\u0065l":"b"',
        b'"model":"a","x":{"model":"b"},"model":"c"',
    ],
)
def test_two_models_are_refused_however_they_are_written(twice: bytes, between: bytes) -> None:
    body = b"{" + twice.replace(b",", b"," + between).replace(b":", b":" + between) + between + b"}"
    with pytest.raises(BadRequestError) as caught:
        requests.members(body)
    assert caught.value.param == "model"


@pytest.mark.parametrize("style", [{"separators": (",", ":")}, {}, {"indent": 1}])
def test_deeper_members_are_the_engines_to_read(style: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "x": {"a": 1, "b": 2}}, **style).encode().replace(b'"b"', b'"a"')
    assert set(requests.members(body)) == {"model", "x"}


def test_what_is_not_changed_goes_on_byte_for_byte() -> None:
    body = b'{"model" : "alias", "big": 1e400, "text":"\\u00e9\\/", "n":  123456789012345678901234567890 , "z":{ } }'
    changed = requests.with_members(requests.members(body), {"model": "m", "new": True})
    assert changed == (
        b'{"model":"m","big":1e400,"text":"\\u00e9\\/","n":123456789012345678901234567890,"z":{ },"new":true}'
    )


def test_a_large_body_is_read_once_over_and_not_again_for_every_member() -> None:
    """400 KB in a thousand members with white space: quadratic code would take minutes."""
    body = json.dumps({f"member-{n}": "x" * 400 for n in range(1000)}).encode()
    assert len(requests.members(body)) == 1000


def test_more_members_than_any_request_has_are_refused() -> None:
    body = json.dumps({f"member-{n}": n for n in range(1001)}).encode()
    with pytest.raises(BadRequestError) as error:
        requests.members(body)
    assert error.value.code == "too_many_parameters"


@pytest.mark.parametrize(
    ("text", "lone"),
    [
        (rb"\ud800", r"\ud800"),
        (rb"x\udfff.", r"\udfff"),
        (rb"\ud83d\ude00\uD83D", r"\uD83D"),
        (rb"\ud800\u0041", r"\ud800"),
        (rb"\\\udbff", r"\udbff"),
        (rb"\ud83d\ude00\ude00, and more", r"\ude00"),
        (rb"\ud83d\ude00\ud800\ud800, and more", r"\ud800"),
        (rb"\ud800\n, and more", r"\ud800"),
        (rb"\ud800, and more", r"\ud800"),
    ],
)
def test_a_lone_surrogate_is_named(text: bytes, lone: str) -> None:
    error = refused(b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % text)
    assert error.code == "invalid_json"
    assert f"lone surrogate ({lone})" in error.message


@pytest.mark.parametrize("text", [rb"\ud83d\ude00", rb"\\ud800", rb"\\\\udfff"])
def test_a_pair_of_surrogates_and_an_escaped_backslash_are_taken(text: bytes) -> None:
    requests.decode(b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % text, ChatCompletionRequest)


def test_other_broken_json_has_no_surrogate() -> None:
    assert "surrogate" not in refused(rb'{"model":"\\ud800","messages":[}').message
