"""Models: what the configuration leaves out."""

import pytest

from quarterdeck.settings.models import ModelConfig

MINILM = {"source": "packaged:all-minilm-l6-v2", "task": "embed"}
OWN = {"source": "./embedder", "task": "embed"}
CHAT = {"source": "packaged:smollm2-135m-instruct"}


@pytest.mark.parametrize(
    ("engine", "too_long", "truncates"),
    [
        (MINILM, None, True),
        (MINILM, "refuse", False),
        (OWN, None, False),
        (OWN, "truncate", True),
        (CHAT, None, False),
    ],
)
def test_the_packaged_embedding_model_truncates(engine: dict[str, str], too_long: str | None, truncates: bool) -> None:
    model = ModelConfig.model_validate({"name": "m", "engine": engine, "too_long": too_long})
    assert model.truncates is truncates
