"""Paths as clients spell them."""

import pytest

from quarterdeck.gateway.http.spellings import spelled

CHAT, MODELS = "/v1/chat/completions", "/v1/models"
KNOWN = {CHAT, "/v1/completions", "/v1/score", "/tokenize", "/openai/deployments/m/chat/completions"}


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", CHAT),
        ("/completions", "/v1/completions"),
        ("/v1/v1/chat/completions", CHAT),
        ("//v1/chat/completions", CHAT),
        ("/v1//chat/completions", CHAT),
        ("/v1/chat/completions/", CHAT),
        ("/openai/v1/chat/completions", CHAT),
        ("/openai/chat/completions", CHAT),
        ("//openai/v1/v1//chat/completions//", CHAT),
        ("/score", "/v1/score"),
        ("/v1/tokenize", "/tokenize"),
        ("/tokenize/", "/tokenize"),
        ("/models", MODELS),
        ("/openai/models", MODELS),
        ("/openai/v1/models/org/emb", "/v1/models/org/emb"),
        ("/v1/models/", MODELS),
        ("/openai/deployments/m//chat/completions", "/openai/deployments/m/chat/completions"),
    ],
)
def test_another_spelling_of_a_path_is_understood(path: str, meant: str) -> None:
    assert spelled(path, KNOWN.__contains__) == meant


@pytest.mark.parametrize(
    "path",
    [
        *(CHAT, MODELS, "/", "", "/v1", "/v1/", "/openai", "/v1/responses", "/v2/chat/completions"),
        *("/admin/keys/", "//admin/keys", "/v1/admin/keys", "/openai/metrics", "/v1/healthz", "//metrics", "/readyz/"),
        *("/v1/../v1/chat/completions", "/v11/chat/completions", "/openaix/chat/completions", "chat/completions"),
    ],
)
def test_other_paths_stay_as_they_are(path: str) -> None:
    assert spelled(path, KNOWN.__contains__) is None
