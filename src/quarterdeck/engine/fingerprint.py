"""Fingerprints of models' files, by which gateways tell that a model was replaced under its name.

Reading gigabytes of weights at each start would take minutes, so large files are sampled. That finds retrained or
converted weights; it is no protection against someone who wants to deceive it.
"""

import hashlib
import json
import os
from pathlib import Path

from quarterdeck.engine.packaged import PreparationError, packaged
from quarterdeck.settings.engine import EngineConfig

_SAMPLES = 16
_SAMPLE_BYTES = 64 << 10
_MAX_FILES = 1000
_DIGITS = 16


def fingerprint(engine: EngineConfig, base: Path) -> str:
    """A digest of the model's files and its chat template. Empty for a Hugging Face id, whose files are not known here.

    Blocks. Raises OSError.
    """
    digest = hashlib.sha256()
    if engine.is_packaged:
        try:
            digest.update(json.dumps(packaged(engine).stamp).encode())
        except PreparationError:
            return ""
    elif engine.is_folder:
        folder = base / Path(engine.source).expanduser()
        files = sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_file())
        for path in files[:_MAX_FILES]:
            _add(path, digest)
    else:
        return ""
    if engine.chat_template is not None:
        _add(base / Path(engine.chat_template).expanduser(), digest)
    return digest.hexdigest()[:_DIGITS]


def _add(path: Path, digest: "hashlib._Hash") -> None:
    """Add a file's name, size and content: whole if it is small, else evenly spaced samples."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(f"{path.name} {size}\n".encode())
        if size <= _SAMPLES * _SAMPLE_BYTES:
            digest.update(file.read(_SAMPLES * _SAMPLE_BYTES))
            return
        for number in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
