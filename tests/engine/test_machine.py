"""The machine's properties, read from files."""

from pathlib import Path

import pytest

from quarterdeck.engine.machine import Machine, cpu_flags, read_machine


@pytest.mark.parametrize("name", ["flags", "Features"])
def test_cpu_flags_are_read_on_x86_and_arm(name: str) -> None:
    assert cpu_flags(f"processor\t: 0\n{name}\t\t: fp bf16\n\nprocessor\t: 1\n") == {"fp", "bf16"}
    assert cpu_flags("processor\t: 0\n") == frozenset()


@pytest.mark.parametrize(("flag", "expected"), [("amx_bf16", True), ("svebf16", True), ("avx512f", False)])
def test_bfloat16_needs_an_instruction(flag: str, expected: bool) -> None:
    machine = Machine(cpu_flags=frozenset({flag}), cores=(0,), gpus=0, has_gpu_engine=False)
    assert machine.has_bfloat16 is expected


def test_gpus_are_counted_by_their_devices(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags\t: fp\n")
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert read_machine(tmp_path, tmp_path, {}).gpus == 2


@pytest.mark.parametrize(
    ("visible", "count"), [("0", 1), ("0,1", 2), ("", 0), ("-1", 0), ("1,-1,0", 1), ("GPU-1a,GPU-2b,GPU-3c", 2)]
)
def test_gpus_that_are_hidden_from_this_process_are_not_counted(tmp_path: Path, visible: str, count: int) -> None:
    (tmp_path / "cpuinfo").write_text("flags\t: fp\n")
    for name in ("nvidia0", "nvidia1"):
        (tmp_path / name).touch()
    assert read_machine(tmp_path, tmp_path, {"CUDA_VISIBLE_DEVICES": visible}).gpus == count
