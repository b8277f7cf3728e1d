"""The size of a checkpoint's weights, read from its files' headers."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

_HEADER_LIMIT = 100 << 20
"""Of a safetensors file: what its own library accepts."""
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`parameters`: 0 where the format does not tell."""

    parameters: int
    stored_bytes: int


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of a model's folder. Of several formats only the first counts, as vLLM loads one. Blocks. Raises
    OSError; a damaged header counts as an unknown number of parameters."""
    for pattern in _WEIGHTS:
        files = sorted(folder.glob(pattern))
        if files:
            counts = [_parameters(path) for path in files] if pattern == "*.safetensors" else [0]
            return Checkpoint(sum(counts) if all(counts) else 0, sum(path.stat().st_size for path in files))
    return Checkpoint(0, 0)


def _parameters(path: Path) -> int:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _HEADER_LIMIT:
            return 0
        try:
            header = json.loads(file.read(length))
            return sum(math.prod(each["shape"]) for name, each in header.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, AttributeError):
            return 0
