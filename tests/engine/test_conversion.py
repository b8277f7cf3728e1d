"""GGUF to safetensors: the numeric parts. Runs in the engine's environment, which has numpy."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".envs" / "engine" / "bin" / "python"

PROOF = """
import numpy as np
from quarterdeck.engine.conversion import tensor_name, to_bfloat16, unpermute

assert tensor_name("blk.7.attn_q.weight") == "model.layers.7.self_attn.q_proj.weight"
assert tensor_name("token_embd.weight") == "model.embed_tokens.weight"

# Ties go to the even: 1.0 + half a step stays, 1.0 + one and a half steps goes up.
ones = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001], dtype=np.uint32).view(np.float32)
assert to_bfloat16(ones).tolist() == [0x3F80, 0x3F80, 0x3F82, 0x3F81]

# llama.cpp's own permutation, as its converter writes it, undone.
weights = np.arange(2 * 8 * 3).reshape(16, 3)
permuted = weights.reshape(2, 2, 4, 3).swapaxes(1, 2).reshape(weights.shape)
assert (unpermute(permuted, 2) == weights).all()
"""


@pytest.mark.e2e
def test_names_rounding_and_rows() -> None:
    assert PYTHON.exists(), "the engine's environment is missing: make setup"
    subprocess.run([PYTHON, "-c", PROOF], check=True, cwd=ROOT)
