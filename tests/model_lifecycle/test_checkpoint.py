"""Sizes of checkpoints."""

import json
from pathlib import Path

import pytest

from quarterdeck.model_lifecycle.checkpoint import read_checkpoint


def write_safetensors(path: Path, *shapes: list[int]) -> None:
    header = {f"w{number}": {"dtype": "BF16", "shape": shape} for number, shape in enumerate(shapes)}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 100)


def test_parameters_are_counted_over_all_files(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model-1.safetensors", [10, 20], [5])
    write_safetensors(tmp_path / "model-2.safetensors", [3])
    found = read_checkpoint(tmp_path)
    assert found.parameters == 208
    assert found.stored_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize("damage", [b"", b"\xff" * 8, b"\x05\0\0\0\0\0\0\0hello", b"\x02\0\0\0\0\0\0\0[]"])
def test_a_damaged_header_leaves_the_size_on_disk(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(damage)
    found = read_checkpoint(tmp_path)
    assert (found.parameters, found.stored_bytes) == (0, len(damage))


def test_of_two_formats_one_counts(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", [2])
    (tmp_path / "pytorch_model.bin").write_bytes(b"x" * 5000)
    assert read_checkpoint(tmp_path).stored_bytes < 1000


def test_a_folder_without_weights_has_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path).stored_bytes == 0
