"""A target that can't be tested is reported in one line before any load starts."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.load.servers import answering

from quarterdeck.load.run import target
from quarterdeck.load.run.target import TargetError

MODELS = (200, json.dumps({"data": [{"id": "llm", "owned_by": "quarterdeck"}, {"id": "embedder"}]}).encode())


def refused(status: int, message: str) -> tuple[int, bytes]:
    return status, json.dumps({"error": {"message": message, "code": "x"}}).encode()


def why(url: str, model: str | None = None) -> str:
    with pytest.raises(TargetError) as error:
        target.find(url, "sk-secret", model, None, wants_embeddings=False)
    message = str(error.value)
    assert "\n" not in message
    assert "sk-secret" not in message
    return message


BAD: dict[str, tuple[Mapping[str, tuple[int, bytes]], str]] = {
    "unauthorized": ({"/models": refused(401, "Incorrect API key.")}, r"rejects this key \(401: Incorrect API key\.\)"),
    "forbidden": ({"/models": refused(403, "Not yours.")}, r"denies access \(403: Not yours\.\)"),
    "a web server": ({}, "is not an OpenAI endpoint: GET /models returned 404"),
    "a page": ({"/models": (200, b"<html>")}, "is not an OpenAI endpoint: .* without a list of models"),
    "no chat model": (
        {"/models": MODELS, "/chat/completions": refused(400, "no")},
        "no model answers a chat",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_targets_are_one_line(case: str) -> None:
    answers, expected = BAD[case]
    with answering(answers) as url:
        assert re.search(expected, why(url))


def test_a_wrong_model_is_named_with_those_that_are_there() -> None:
    with answering({"/models": MODELS, "/chat/completions": refused(404, "does not exist")}) as url:
        assert why(url, "nope").endswith("has no model 'nope'; it has llm, embedder")


def test_where_nothing_listens_and_where_no_tls_is_spoken() -> None:
    assert why("http://127.0.0.1:1") == "127.0.0.1:1: connection refused"
    with answering({"/models": MODELS}) as url:
        assert "does not speak TLS" in why(url.replace("http://", "https://"))
    assert "is not a URL" in why("localhost:8000")


def test_models_are_found_by_asking() -> None:
    with answering({"/models": MODELS, "/chat/completions": (200, b"{}"), "/embeddings": (200, b"{}")}) as url:
        found = target.find(url.removesuffix("/v1"), "sk-secret", None, None, wants_embeddings=True)
    assert (found.url, found.model, found.embedding_model, found.kind) == (url, "llm", "embedder", "quarterdeck")
    assert "sk-secret" not in repr(found)


def test_the_local_platform_is_read_from_its_credentials(tmp_path: Path) -> None:
    assert target.local(tmp_path) is None
    (tmp_path / "credentials").write_text(
        'base_url = "http://127.0.0.1:8000/v1"\napi_key = "sk-1"\nadmin_key = "sk-2"\n'
    )
    assert target.local(tmp_path) == ("http://127.0.0.1:8000/v1", "sk-1")
