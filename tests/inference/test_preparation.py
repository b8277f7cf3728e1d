"""The body that an engine is sent: what changes, and nothing else."""

import contextlib
import dataclasses
from typing import Any

import msgspec
import pytest
from tests.inference.making import CHAT, an_endpoint, as_json, served

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.call import Operation
from quarterdeck.inference.preparation import adapt_body, cache_salt, prepare_body
from quarterdeck.inference.request import decode
from quarterdeck.inference.routing.directory import ServedModel

CHATS = Operation.CHAT
COMPLETION = {"model": "m", "prompt": "Hi"}


def sent(asked: dict[str, Any], operation: Operation = CHATS, most: int | None = None) -> dict[str, Any]:
    ready = prepare_body(decode(operation, as_json(asked)), served(), most)
    return msgspec.json.decode(ready, type=dict[str, Any])


def test_what_needs_no_change_is_the_same_bytes() -> None:
    body = b'{"model" : "m", "messages": [], "x" : 1.50}'
    assert prepare_body(decode(CHATS, body), served(), None) is body


def test_an_alias_becomes_the_models_name() -> None:
    assert sent(CHAT | {"model": "gpt-4o-mini", "top_k": 7}) == CHAT | {"model": "m", "top_k": 7}


@pytest.mark.parametrize("options", [{}, {"stream_options": None}, {"stream_options": {"include_usage": False}}])
def test_a_stream_is_asked_for_its_usage(options: dict[str, Any]) -> None:
    assert sent(CHAT | {"stream": True} | options)["stream_options"] == {"include_usage": True}


def test_other_stream_options_stay() -> None:
    asked = CHAT | {"stream": True, "stream_options": {"chunk_size": 7}}
    assert sent(asked)["stream_options"] == {"chunk_size": 7, "include_usage": True}


@pytest.mark.parametrize("stream", [{}, {"stream": False}, {"stream": None}])
def test_a_plain_answer_is_not(stream: dict[str, Any]) -> None:
    assert "stream_options" not in sent(CHAT | stream)


@pytest.mark.parametrize(
    ("asked", "operation", "added"),
    [
        (CHAT, CHATS, {"max_completion_tokens": 100}),
        (CHAT | {"max_tokens": 100}, CHATS, {}),
        (CHAT | {"max_completion_tokens": 5}, CHATS, {}),
        (CHAT | {"max_tokens": None, "max_completion_tokens": None}, CHATS, {"max_completion_tokens": 100}),
        (COMPLETION, Operation.COMPLETIONS, {"max_tokens": 16}),
        (COMPLETION | {"max_tokens": 50}, Operation.COMPLETIONS, {}),
    ],
)
def test_a_request_is_held_to_its_keys_max_tokens(
    asked: dict[str, Any], operation: Operation, added: dict[str, Any]
) -> None:
    given = {name: value for name, value in asked.items() if value is not None}
    assert sent(asked, operation, 100) == given | added


def test_a_completions_own_default_may_be_more_than_a_key_has() -> None:
    assert sent(COMPLETION, Operation.COMPLETIONS, 5)["max_tokens"] == 5


@pytest.mark.parametrize(
    ("asked", "operation", "param"),
    [
        (CHAT | {"max_tokens": 101}, CHATS, "max_tokens"),
        (CHAT | {"max_completion_tokens": 101}, CHATS, "max_completion_tokens"),
        (CHAT | {"max_tokens": 101, "max_completion_tokens": 1}, CHATS, "max_tokens"),
        (CHAT | {"max_tokens": 1, "max_completion_tokens": 101}, CHATS, "max_completion_tokens"),
        (COMPLETION | {"max_tokens": 101}, Operation.COMPLETIONS, "max_tokens"),
    ],
)
def test_more_than_a_key_has_is_refused_in_whichever_field(
    asked: dict[str, Any], operation: Operation, param: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        sent(asked, operation, 100)
    assert (caught.value.param, caught.value.code) == (param, "max_tokens_exceeded")


def test_a_request_that_generates_nothing_has_no_max_tokens() -> None:
    asked = {"model": "m", "input": "Hi"}
    assert sent(asked, Operation.EMBEDDINGS, 5) == asked


def test_an_endpoint_elsewhere_may_call_the_model_otherwise() -> None:
    body = b'{"messages":[ ],"model":"m"}'
    assert adapt_body(body, an_endpoint()) is body
    assert adapt_body(body, an_endpoint(upstream_model="llama3.2")) == b'{"messages":[ ],"model":"llama3.2"}'


# cache_salt


def salt_of(org: str = "acme", *, isolated: bool = True, operation: Operation = CHATS, **asked: Any) -> str | None:
    return cache_salt(decode(operation, as_json(CHAT | asked)), org, is_isolated=isolated)


def test_each_org_has_its_own_salt() -> None:
    assert salt_of("acme") == salt_of("acme") != salt_of("other")
    assert salt_of("acme", isolated=False) is None
    assert len(salt_of() or "") == 43


def test_a_clients_salt_divides_only_its_own_orgs_cache() -> None:
    others = salt_of("other")
    for isolated in (True, False):
        mine = salt_of("acme", isolated=isolated, cache_salt=others)
        assert mine not in (None, others, salt_of("acme"), salt_of("other", cache_salt=others))
        assert mine != salt_of("acme", isolated=isolated, cache_salt="x")
    assert salt_of(cache_salt=None) == salt_of()


@pytest.mark.parametrize("salt", ["", "x" * 1025, 5, {}, ["x"], True])
def test_a_salt_that_vllm_refuses_is_refused(salt: Any) -> None:
    for isolated in (True, False):
        with pytest.raises(BadRequestError) as refused:
            salt_of(isolated=isolated, cache_salt=salt)
        assert refused.value.param == "cache_salt"


def test_the_salt_is_added_and_the_rest_stays_byte_for_byte() -> None:
    body = b' {"model" : "m", "messages": [], "x" : 1.50}'
    assert prepare_body(decode(CHATS, body), served(), None, salt="s") == (
        b' {"cache_salt":"s","model" : "m", "messages": [], "x" : 1.50}'
    )


@pytest.mark.parametrize("asked", [CHAT | {"cache_salt": "mine"}, CHAT | {"model": "alias"}, CHAT | {"stream": True}])
def test_the_salt_replaces_a_clients_and_joins_other_changes(asked: dict[str, Any]) -> None:
    ready = msgspec.json.decode(prepare_body(decode(CHATS, as_json(asked)), served(), None, salt="s"))
    assert (ready["cache_salt"], ready["model"]) == ("s", "m")


def test_only_operations_with_a_prefix_cache_are_salted() -> None:
    bodies = {
        Operation.COMPLETIONS: COMPLETION,
        Operation.EMBEDDINGS: {"model": "m", "input": "x"},
        Operation.SCORE: {"model": "m", "text_1": "x", "text_2": "y"},
        Operation.TOKENIZE: {"model": "m", "prompt": "x"},
        Operation.DETOKENIZE: {"model": "m", "tokens": [1]},
    }
    salted = {
        operation.word
        for operation, body in bodies.items()
        if b"cache_salt" in prepare_body(decode(operation, as_json(body)), served(), None, salt="s")
    }
    assert salted == {"completions", "embeddings", "score"}


def test_only_vllm_is_sent_the_salt() -> None:
    body = prepare_body(decode(CHATS, as_json(CHAT)), served(), None, salt="s")
    assert b"cache_salt" in adapt_body(body, an_endpoint())
    for kind in ("openai", "ollama"):
        assert b"cache_salt" not in adapt_body(body, an_endpoint(kind=kind))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vllm_xargs", {"kv_transfer_params": "x"}),
        ("vllm_xargs", {"ec_transfer_params": ["x"]}),
        ("chat_template_kwargs", {"chat_template": "x"}),
        ("mm_processor_kwargs", {"images": "/etc/passwd"}),
        ("mm_processor_kwargs", {"images_kwargs": {"videos": ["http://inside/"]}}),
        ("ec_transfer_params", {}),
    ],
)
def test_an_argument_that_loads_or_connects_is_refused(name: str, value: Any) -> None:
    with pytest.raises(BadRequestError) as refused:
        sent(CHAT | {name: value})
    assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize("name", ["mm_processor_kwargs", "vllm_xargs", "chat_template_kwargs"])
@pytest.mark.parametrize("depth", [900, 990, 5000])
def test_a_deeply_nested_argument_is_no_error_of_ours(name: str, depth: int) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    body = f'{{"model":"m","messages":[],"{name}":{deep}}}'.encode()
    with contextlib.suppress(BadRequestError):
        assert prepare_body(decode(CHATS, body), served(), None) == body


def test_other_arguments_are_forwarded() -> None:
    asked = CHAT | {"mm_processor_kwargs": {"fps": 2, "x": [1.5, True, None]}, "vllm_xargs": {"my_processor": "on"}}
    assert sent(asked) == asked


EMBED = {"model": "m", "input": "long " * 1000}
SCORE = {"model": "m", "text_1": "a", "text_2": ["b"]}


@pytest.mark.parametrize(
    ("asked", "operation"), [(EMBED, Operation.EMBEDDINGS), (SCORE, Operation.SCORE)], ids=["embeddings", "score"]
)
def test_an_embedding_model_that_truncates_reads_the_beginning(asked: dict[str, Any], operation: Operation) -> None:
    truncating = dataclasses.replace(served(), truncates=True)

    def ready(asked: dict[str, Any], to: ServedModel = truncating) -> dict[str, Any]:
        body = prepare_body(decode(operation, as_json(asked)), to, None)
        return msgspec.json.decode(body, type=dict[str, Any])

    assert ready(asked) == ready(asked | {"truncate_prompt_tokens": None}) == asked | {"truncate_prompt_tokens": -1}
    assert ready(asked | {"truncate_prompt_tokens": 5}) == asked | {"truncate_prompt_tokens": 5}
    assert ready(asked, served()) == asked


def test_a_chat_is_never_truncated() -> None:
    body = as_json(CHAT)
    assert prepare_body(decode(CHATS, body), dataclasses.replace(served(), truncates=True), None) is body


def test_every_engine_is_sent_tools_for_functions() -> None:
    asked = {**CHAT, "functions": [{"name": "f", "parameters": {}}], "function_call": {"name": "f"}}
    sent = {
        **CHAT,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
    }
    for to in (served(), dataclasses.replace(served(), is_vllm=False)):
        body = prepare_body(decode(CHATS, as_json(asked)), to, None)
        assert msgspec.json.decode(body, type=dict[str, Any]) == sent


@pytest.mark.parametrize("given", [[1, 2, 3], [[1, 2], [3]], ["text", [1]], [1]])
@pytest.mark.parametrize(("operation", "param"), [(Operation.EMBEDDINGS, "input"), (Operation.COMPLETIONS, "prompt")])
def test_a_model_that_refuses_token_ids_says_so(given: list[Any], operation: Operation, param: str) -> None:
    body = as_json({"model": "m", param: given})
    refusing = dataclasses.replace(served(), takes_token_ids=False)
    prepare_body(decode(operation, body), served(), None)
    with pytest.raises(BadRequestError) as caught:
        prepare_body(decode(operation, body), refusing, None)
    assert (caught.value.param, caught.value.code) == (param, "token_ids_not_supported")
    assert ("check_embedding_ctx_length=False" in caught.value.message) == (param == "input")


@pytest.mark.parametrize("given", ["text", ["one", "two"], []])
def test_a_model_that_refuses_token_ids_takes_texts(given: object) -> None:
    refusing = dataclasses.replace(served(), takes_token_ids=False)
    for operation, param in ((Operation.EMBEDDINGS, "input"), (Operation.COMPLETIONS, "prompt")):
        prepare_body(decode(operation, as_json({"model": "m", param: given})), refusing, None)
    prepare_body(decode(CHATS, as_json(CHAT)), refusing, None)
