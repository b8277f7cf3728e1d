"""The KV cache of one request, from a model's configuration."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.model_lifecycle.kv_cache import KVShape, kv_shape, read_kv_shape

QWEN = {
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "hidden_size": 896,
    "max_position_embeddings": 32768,
    "sliding_window": 32768,
    "use_sliding_window": False,
}
"""Of Qwen2.5-0.5B-Instruct."""


def test_keys_and_values_of_every_layer_are_counted() -> None:
    assert kv_shape(QWEN) == KVShape(2 * 24 * 2 * 64, 32768)


@pytest.mark.parametrize(
    ("changes", "elements"),
    [
        ({"head_dim": 128}, 2 * 24 * 2 * 128),
        ({"num_key_value_heads": None}, 2 * 24 * 14 * 64),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, 24 * 576),
        ({"layer_types": ["full_attention"] * 24}, 2 * 24 * 2 * 64),
    ],
)
def test_variants_of_attention(changes: dict[str, Any], elements: int) -> None:
    found = kv_shape({**QWEN, **changes})
    assert found is not None and found.elements == elements


def test_a_multimodal_model_has_its_text_part_inside() -> None:
    assert kv_shape({"model_type": "llava", "text_config": QWEN}) == kv_shape(QWEN)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_sliding_window": True},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"mamba_d_state": 16},
        {"num_hidden_layers": None},
        {"num_attention_heads": 0, "num_key_value_heads": None},
        {"hidden_size": "wide"},
    ],
)
def test_of_other_models_it_is_not_known(changes: dict[str, Any]) -> None:
    assert kv_shape({**QWEN, **changes}) is None


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_folder_that_does_not_tell(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert read_kv_shape(tmp_path) is None


def test_a_folder_that_tells(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    assert read_kv_shape(tmp_path) == kv_shape(QWEN)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from([1, 2, 4]))
def test_a_request_of_the_longest_length_fits_and_a_longer_one_does_not(elements: int, tokens: int, size: int) -> None:
    shape = KVShape(elements, 0)
    room = shape.bytes_of(tokens, size)
    longest = shape.tokens_in(room, size)
    assert tokens <= longest < tokens + 128
    assert shape.bytes_of(longest, size) <= room < shape.bytes_of(longest + 1, size)
