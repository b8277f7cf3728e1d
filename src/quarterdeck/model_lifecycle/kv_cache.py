"""The size of a model's KV cache, from its `config.json`.

An engine reserves room for at least one request of full length; with less it refuses to start. Of models whose layers
keep something else than keys and values of every token (sliding windows, state spaces), the size is not computed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BLOCK = 128
"""Tokens that vLLM's CPU backend allots at once; a GPU's blocks are smaller."""
_OTHER_STATE = ("mamba_", "ssm_", "linear_", "attn_layer_", "conv_", "rwkv_", "layers_block_type", "hybrid_")


@dataclass(frozen=True, slots=True)
class KVShape:
    """`elements`: numbers that one token takes. `context`: tokens of the longest request that the model was made for, 0
    where it does not tell."""

    elements: int
    context: int

    def bytes_of(self, tokens: int, element_bytes: int) -> int:
        """The cache of one request of so many tokens; one block more, which vLLM keeps for itself."""
        blocks = -(-tokens // _BLOCK) + 1 if tokens else 0
        return blocks * _BLOCK * self.elements * element_bytes

    def tokens_in(self, size: int, element_bytes: int) -> int:
        """The longest request whose cache has `size` bytes."""
        return max(0, size // (_BLOCK * self.elements * element_bytes) - 1) * _BLOCK


def read_kv_shape(folder: Path) -> KVShape | None:
    """None: there is no `config.json`, or it does not tell. Blocks."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kv_shape(config) if isinstance(config, dict) else None


def kv_shape(config: Mapping[str, Any]) -> KVShape | None:
    nested = config.get("text_config")
    text: Mapping[str, Any] = nested if isinstance(nested, dict) else config
    if _keeps_other_state(text):
        return None
    try:
        layers = int(text["num_hidden_layers"])
        if text.get("kv_lora_rank"):  # DeepSeek's latent attention: one compressed vector for all heads
            elements = layers * (int(text["kv_lora_rank"]) + int(text["qk_rope_head_dim"]))
        else:
            heads = int(text["num_attention_heads"])
            size = int(text.get("head_dim") or int(text["hidden_size"]) // heads)
            elements = 2 * layers * int(text.get("num_key_value_heads") or heads) * size
        context = int(text.get("max_position_embeddings") or 0)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return KVShape(elements, context) if elements > 0 and context >= 0 else None


def _keeps_other_state(text: Mapping[str, Any]) -> bool:
    if text.get("sliding_window") and text.get("use_sliding_window", True):
        return True
    kinds = text.get("layer_types")
    if isinstance(kinds, list) and any(kind != "full_attention" for kind in kinds):
        return True
    return any(name.startswith(_OTHER_STATE) for name in text)
