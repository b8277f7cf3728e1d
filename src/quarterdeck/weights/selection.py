"""Which files of a repository an engine reads. Pure.

Repositories hold the same weights in several formats. vLLM reads safetensors where there are any, else PyTorch's.
"""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

CONFIG = "config.json"
_OTHER_FORMATS = (".h5", ".msgpack", ".onnx", ".onnx_data", ".tflite", ".ot", ".gguf", ".mlmodel", ".ckpt", ".npz")
_PYTORCH = (".bin", ".pt", ".pth")
_OTHER_FOLDERS = frozenset({"original", "onnx", "openvino", "coreml", "gguf", "metal", "flax", "tf", ".git"})
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp4", ".svg", ".pdf")


def needed_files(names: Iterable[str]) -> list[str]:
    """The names that are downloaded, in their order."""
    found = [name for name in names if _may_be_needed(name)]
    safe = {str(PurePosixPath(name).parent) for name in found if name.endswith(".safetensors")}
    has_own_shards = any(_is_in_root(name) and re.fullmatch(r"model.*\.safetensors", name) for name in found)
    return [
        name
        for name in found
        # PyTorch's weights beside safetensors are the same once more; small ones (`training_args.bin`) are not needed.
        if not (name.endswith(_PYTORCH) and str(PurePosixPath(name).parent) in safe)
        # Mistral's own format beside Hugging Face's.
        and not (has_own_shards and _is_in_root(name) and re.fullmatch(r"consolidated.*\.safetensors", name))
    ]


def has_weights(names: Iterable[str]) -> bool:
    """Whether an engine can be started with these files."""
    listed = list(names)
    return CONFIG in listed and any(name.endswith((".safetensors", *_PYTORCH)) for name in listed)


def _may_be_needed(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        not path.is_absolute()
        and ".." not in path.parts
        and not name.lower().endswith((*_OTHER_FORMATS, *_PICTURES))
        and path.parts[0] not in _OTHER_FOLDERS
        and name != ".gitattributes"
    )


def _is_in_root(name: str) -> bool:
    return "/" not in name
