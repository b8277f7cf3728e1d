"""Writes folders that look like adapters."""

import json
import struct
from pathlib import Path


def safetensors(values: bytes = b"weights!") -> bytes:
    header = json.dumps({"lora_A": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return struct.pack("<Q", len(header)) + header + values


def write_adapter(folder: Path, values: bytes = b"weights!") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8}))
    (folder / "adapter_model.safetensors").write_bytes(safetensors(values))
    return folder
