"""Which content parts and media URLs reach an engine, in every operation that takes them."""

from typing import Any

import pytest
from tests.inference.making import a_request

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.call import Operation
from quarterdeck.inference.media import PART_TYPES, check_media, is_allowed_url
from quarterdeck.inference.request import InferenceRequest, decode

METADATA = "http://169.254.169.254/latest/meta-data"


def asked(*parts: Any) -> InferenceRequest:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "?"}, *parts]},
    ]
    return a_request(messages=messages)


def picture(url: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


@pytest.mark.parametrize(
    "part",
    [
        picture(METADATA),
        picture("https://example.com/a.png"),
        picture("HTTP://localhost:8000/admin/keys"),
        picture("file:///etc/passwd"),
        picture("//host/a.png"),
        picture("http://["),
        picture(" http://inside/"),
        picture(""),
        picture("data :,x"),
        {"type": "audio_url", "audio_url": {"url": "http://inside/a.wav"}},
        {"type": "video_url", "video_url": {"url": "http://inside/a.mp4"}},
        {"type": "input_image", "image_url": "http://inside/a.png"},
        {"type": "input_audio", "input_audio": {"data": "http://inside/a.wav", "format": "wav"}},
        {"type": "file", "file": {"file_data": "http://inside/a.pdf"}},
        {"type": "file", "file": {"file_url": "http://inside/a.pdf"}},
        {"image_url": METADATA},
        {"type": None, "image_url": {"url": METADATA}},
        {"IMAGE_URL": METADATA},
        {"type": "text", "text": "x", "image_url": METADATA},
        {"type": "text", "text": "x", "image_url": {"url": METADATA}, "uuid": None},
        {"type": "text", "text": "x", "pdf_url": METADATA},
        {"type": "image_url", "image_url": {"url": "data:,x", "image_url": METADATA}},
    ],
)
def test_a_url_is_refused_wherever_it_is_in_a_part(part: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as refused:
        check_media(asked(part), ())
    assert (refused.value.code, refused.value.param) == ("media_url_not_allowed", "messages[1].content")


@pytest.mark.parametrize("url", ["data:image/png;base64,AAAA", "DATA:image/png;base64,AAAA"])
def test_media_within_the_request_is_forwarded(url: str) -> None:
    check_media(asked(picture(url), {"type": "file", "file": {"filename": "a", "file_data": url}}), ())
    check_media(asked({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}), ())


@pytest.mark.parametrize(
    "part",
    [
        {"type": "prompt_embeds", "data": "gASV"},
        {"type": "image_embeds", "image_embeds": {"image_grid_thw": "gASV"}},
        {"type": "audio_embeds", "audio_embeds": "gASV"},
        {"type": "video_embeds", "video_embeds": "gASV"},
        {"type": "image_pil", "image_pil": "x"},
        {"type": "image", "image": METADATA},
        {"type": "video", "video": METADATA},
        {"type": "input_file", "file_url": METADATA},
        {"type": "tool_result", "content": [picture(METADATA)]},
        {"type": "document", "source": {"type": "url", "url": METADATA}},
        {"type": "Text", "text": "x"},
        {"type": 7},
        {"type": ["image_url"], "image_url": METADATA},
    ],
)
def test_an_unknown_type_is_refused_by_name(part: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as refused:
        check_media(asked(part), ("*",))
    assert (refused.value.code, refused.value.param) == ("invalid_value", "messages[1].content[1].type")
    assert all(f"'{kind}'" in refused.value.message for kind in PART_TYPES)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"prompt_embeds": None, "data": "gASV"}, "prompt_embeds"),
        ({"type": "text", "text": "x", "uuid": "1", "prompt_embeds": "x", "data": "gASV"}, "uuid"),
        ({"image_embeds": "gASV"}, "image_embeds"),
        ({"type": "image_url", "image_url": None, "uuid": "of-another-caller"}, "uuid"),
        ({"type": "input_image", "file_id": "file-of-another-caller"}, "file_id"),
        ({"type": "text", "text": "x", "image": METADATA}, "image"),
        ({"type": "text", "text": "x", "content": [{"type": "image_url"}]}, "content"),
    ],
)
def test_a_tensor_or_a_reference_is_refused_in_any_part(part: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        check_media(asked(part), ("*",))
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", f"messages[1].content[1].{param}")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "http://inside/ is only text", "cache_control": {"type": "ephemeral"}},
        {"type": "refusal", "refusal": "no"},
        {"type": "thinking", "thinking": "hm", "closed": True},
        {"type": "tool_reference", "name": "weather"},
        {"type": "text", "text": "a dumped SDK object", "image_url": None, "file_id": None, "uuid": None},
        {"type": "output_text", "text": "x", "annotations": [{"type": "url_citation", "url": "https://a.example"}]},
        {"image_url": "data:,x"},
    ],
)
def test_parts_without_foreign_media_are_forwarded(part: dict[str, Any]) -> None:
    check_media(asked(part), ())


def test_every_message_is_checked() -> None:
    for role in ("system", "developer", "user", "assistant", "tool", "anything"):
        with pytest.raises(BadRequestError):
            check_media(a_request(messages=[{"role": role, "tool_call_id": "1", "content": [picture(METADATA)]}]), ())


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.TOKENIZE, {"messages": [message(picture(METADATA))]}),
        (Operation.EMBEDDINGS, {"input": "x", "messages": [message(picture(METADATA))]}),
        (Operation.EMBEDDINGS, {"input": "x", "messages": [[message(picture(METADATA))]]}),
        (Operation.EMBEDDINGS, {"input": [message(picture(METADATA))]}),
        (Operation.EMBEDDINGS, {"input": [[message(picture(METADATA))]]}),
        (Operation.EMBEDDINGS, {"input": [picture(METADATA)]}),
        (Operation.SCORE, {"text_1": {"content": [picture(METADATA)]}, "text_2": "x"}),
        (Operation.SCORE, {"queries": "x", "documents": [{"content": [picture(METADATA)]}]}),
        (Operation.SCORE, {"queries": "x", "items": {"content": [picture(METADATA)]}}),
        (Operation.SCORE, {"data_1": {"content": [picture(METADATA)]}, "data_2": "x"}),
        (Operation.SCORE, {"queries": [{"CONTENT": [picture(METADATA)]}], "documents": "x"}),
        (Operation.SCORE, {"queries": [{"type": "text", "content": [picture(METADATA)]}], "documents": "x"}),
    ],
)
def test_every_operation_is_checked(operation: Operation, body: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as refused:
        check_media(a_request(operation, **body), ())
    assert refused.value.code == "media_url_not_allowed"


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.TOKENIZE, {"prompt": "{"}),
        (Operation.EMBEDDINGS, {"input": ["{", "http://inside/"]}),
        (Operation.EMBEDDINGS, {"input": [[1, 2], [3]]}),
        (Operation.EMBEDDINGS, {"input": [message({"type": "text", "text": "x"}, picture("data:,x"))]}),
        (Operation.SCORE, {"text_1": "{", "text_2": ["http://inside/"]}),
        (Operation.SCORE, {"queries": {"content": [picture("data:,x")]}, "documents": [{"text": "x"}]}),
        (Operation.COMPLETIONS, {"prompt": ["{", "x"]}),
        (Operation.COMPLETIONS, {"prompt": [[1, 2]]}),
        (Operation.DETOKENIZE, {"tokens": [1]}),
    ],
)
def test_texts_and_inline_media_are_forwarded_in_every_operation(operation: Operation, body: dict[str, Any]) -> None:
    check_media(a_request(operation, **body), ())


@pytest.mark.parametrize("prompt", [{"prompt_embeds": "x"}, [{"multi_modal_data": {}}], [[{"x": 1}]]])
def test_a_prompt_has_no_objects(prompt: Any) -> None:
    with pytest.raises(BadRequestError) as refused:
        check_media(a_request(Operation.COMPLETIONS, prompt=[prompt]), ())
    assert (refused.value.code, refused.value.param) == ("invalid_type", "prompt")


@pytest.mark.parametrize("depth", [30, 300, 900, 990, 5000])
@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (Operation.SCORE, '{"model":"m","text_1":DEEP}'),
        (Operation.EMBEDDINGS, '{"model":"m","input":DEEP}'),
        (Operation.EMBEDDINGS, '{"model":"m","input":"x","messages":DEEP}'),
        (Operation.COMPLETIONS, '{"model":"m","prompt":DEEP}'),
    ],
)
def test_a_deeply_nested_value_is_refused(operation: Operation, text: str, depth: int) -> None:
    deep = "[" * depth + '{"image_url":"http://inside/"}' + "]" * depth
    with pytest.raises(BadRequestError):
        check_media(decode(operation, text.replace("DEEP", deep).encode()), ())


def test_only_the_listed_hosts_are_allowed() -> None:
    check_media(asked(picture("https://img.example.com/a.png")), ("img.example.com",))
    check_media(asked(picture("HTTPS://IMG.example.com/a.png?x=1#y")), ("img.example.com",))
    for other in ("https://img.example.com.evil.net/", "https://img.example.com@evil.net/", "ftp://img.example.com/"):
        with pytest.raises(BadRequestError):
            check_media(asked(picture(other)), ("img.example.com",))


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.com\\@img.example.com/",
        "http://img.example.com\\.evil.com/",
        "http://img.example.com/\\evil.com",
        "http://user@img.example.com/",
        "http://user:password@img.example.com/",
        "http://@img.example.com/",
        "http://img.example.com@evil.com",
        "http://img.example.com#@evil.com/\\",
        "http://img.example.com./",
        "http://.img.example.com/",
        "http://img.example.com:/",
        "http://img.example.com:80:80/",
        "http://img.example.com:8080/",
        "https://img.example.com:80/",
        "http://img.example.com:+80/",
        "http://img%2eexample.com/",
        "http://img.example.com%00.evil.com/",
        "http://img.example.com\x00/",
        "http://img.example.com/\n",
        "http://img.example.com/ x",
        "\thttp://img.example.com/",
        "ht\ntp://img.example.com/",
        "http://img.example.com?@evil.com/",
        "http://img.example.com?x",
        "http://img.example.com;evil.com/",
        "http://img.example.com,evil.com/",
        "https://img.example.com:99999/",
        "http:/img.example.com/",
        "http:img.example.com/",
        "http:///img.example.com/",
        "http:\\\\img.example.com/",
        "//img.example.com/",
        "img.example.com",
        "http://\u24d8mg.example.com/",
        "http://img\u3002example.com/",
        "http://img.example.com/\u00e9",
        "http://\u0131mg.example.com/",
        "http://IM\u212a.example.com/",
        "http://[img.example.com]/",
        "https+http://img.example.com/",
        "http+unix://img.example.com/",
        "httpx://img.example.com/",
        "jar:http://img.example.com/",
        "view-source:http://img.example.com/",
        "gopher://img.example.com/",
        "file://img.example.com/etc/passwd",
        "javascript:alert(1)",
    ],
)
def test_a_url_that_parsers_disagree_on_is_refused(url: str) -> None:
    for domains in (("img.example.com",), ("img.example.com", "imk.example.com")):
        assert not is_allowed_url(url, domains)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "127.0.0.1", "127.1", "127.000.000.001", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1"),
        *("169.254.169.254", "10.0.0.1", "192.168.0.1", "172.16.0.1", "0.0.0.0", "0", "100.64.0.1", "1.2.3"),
        *("[::1]", "[::ffff:169.254.169.254]", "[fe80::1%25eth0]", "[64:ff9b::a9fe:a9fe]", "[2001:db8::1]"),
        *("redis.svc", "kubernetes.default.svc", "x.svc.cluster.local", "metadata.google.internal", "printer.local"),
        *("redis", "x.localhost", "metadata.google.internal.", "a..b", "example.0x7f", "example.com.1"),
    ],
)
def test_the_wildcard_excludes_this_machine_private_addresses_and_odd_notations(host: str) -> None:
    assert not is_allowed_url(f"http://{host}/a.png", ("*",))
    assert not is_allowed_url(f"http://{host}:80/a.png", ("*",))


def test_the_wildcard_includes_public_names_and_addresses_on_any_port() -> None:
    for host in ("anywhere.example", "a-b.c_d.example.com", "xn--bcher-kva.example", "8.8.8.8", "x1.y2"):
        assert is_allowed_url(f"https://{host}/a.png", ("*",))
        assert is_allowed_url(f"https://{host}:8443/a.png", ("*",))


def test_an_inner_host_or_another_port_is_allowed_by_name() -> None:
    assert is_allowed_url("http://minio:9000/a.png", ("minio:9000",))
    assert not is_allowed_url("http://minio/a.png", ("minio:9000",))
    assert is_allowed_url("http://minio:80/a.png", ("minio",))
    assert is_allowed_url("http://10.0.0.7/a.png", ("10.0.0.7",))
    assert is_allowed_url("http://[::1]:9000/a.png", ("[::1]:9000",))


def test_a_value_that_is_no_url_is_left_to_the_engine() -> None:
    check_media(asked(picture(7), {"type": "image_url", "image_url": None}, {"type": "text", "text": "x"}), ())


@pytest.mark.parametrize("value", [[METADATA], {"url": [METADATA]}, {"url": {"url": METADATA}}])
def test_a_url_inside_another_structure_is_refused(value: object) -> None:
    with pytest.raises(BadRequestError):
        check_media(asked({"type": "image_url", "image_url": value}), ())


@pytest.mark.parametrize(
    "part",
    [
        '{"type":"text","text":"x","type":"image_url"}',
        '{"type": "text", "text": "x", "text": "y"}',
        '{"type":"text","text":"x","t\\u0065xt":"y"}',
        '{"type":"image_url","image_url":{"url":"http://169.254.169.254/","url":"data:,x"}}',
        '{"type":"image_url","image_url":{"url":"http://169.254.169.254/"},"image_url":{"url":"data:,x"}}',
        '{"type":"text","text":"x"},{"type":"file","file":{"file_data":"a","filename":"b","file_data":"c"}}',
    ],
)
@pytest.mark.parametrize(
    ("operation", "members"),
    [
        (Operation.CHAT, '"messages":[{"role":"user","content":[%s]}]'),
        (Operation.TOKENIZE, '"messages": [{"role": "user", "content": [%s]}]'),
        (Operation.EMBEDDINGS, '"input":[{"content":[%s]}]'),
        (Operation.SCORE, '"text_1":"a","text_2":{"content":[%s]}'),
    ],
)
def test_a_member_that_a_part_has_twice_is_refused(operation: Operation, members: str, part: str) -> None:
    request = decode(operation, ('{"model":"m",' + members % part + "}").encode())
    with pytest.raises(BadRequestError) as refused:
        check_media(request, ())
    assert refused.value.code == "duplicate_parameter"


def test_a_member_that_a_message_with_parts_has_twice_is_refused() -> None:
    body = b'{"model":"m","messages":[{"role":"user","role":"system","content":[{"type":"text","text":"x"}]}]}'
    with pytest.raises(BadRequestError) as refused:
        check_media(decode(Operation.CHAT, body), ())
    assert (refused.value.code, refused.value.param) == ("duplicate_parameter", "role")


@pytest.mark.parametrize(
    ("operation", "body", "param"),
    [
        (Operation.CHAT, '"messages":[{}]'.format(",".join(['{"role":"u"}'] * 20_001)), "messages"),
        (Operation.CHAT, '"messages":[{}]'.format(",".join(['{"role":"u","x":null}'] * 20_001)), "messages"),
        (
            Operation.CHAT,
            '"messages":[{{"role":"u","name":null,"content":[{}]}}]'.format(",".join(["{}"] * 20_001)),
            "messages[0].content",
        ),
        (
            Operation.CHAT,
            '"messages":[{}]'.format(",".join(['{"role":"u","content":[{},{},{}]}'] * 7_000)),
            "messages[6666].content",
        ),
        (Operation.EMBEDDINGS, '"input":[{}]'.format(",".join(["{}"] * 20_001)), "input"),
        (Operation.EMBEDDINGS, '"input":[{},{{}}]'.format(",".join(["[1]"] * 20_001)), "input"),
        (Operation.SCORE, '"text_1":"a","text_2":{{"content":[{}]}}'.format(",".join(["{}"] * 20_001)), "text_2"),
    ],
    ids=["messages", "with nulls", "parts", "parts of all messages", "inputs", "lists", "parts of a document"],
)
def test_too_many_items_are_refused_before_they_are_checked(operation: Operation, body: str, param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        check_media(decode(operation, ('{"model":"m",' + body + "}").encode()), ())
    assert (refused.value.code, refused.value.param) == ("array_above_max_length", param)


def test_any_number_of_texts_and_token_lists_is_left_to_the_engine() -> None:
    for items in (['"{"'] * 30_000, ["[1]"] * 30_000):
        check_media(decode(Operation.EMBEDDINGS, ('{{"model":"m","input":[{}]}}'.format(",".join(items))).encode()), ())
