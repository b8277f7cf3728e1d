"""Checks of `doctor` that look at the machine, with the output of the programs that they ask."""

import shutil
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path

import pytest

from quarterdeck.cli import machine_checks

Usage = namedtuple("Usage", "free")


def answers(**texts: str | None) -> machine_checks.Run:
    """Programs that print these texts, by their first option or name."""

    def run(command: Sequence[str]) -> str | None:
        query = "query" if any("query" in word for word in command) else Path(command[0]).name.replace("-", "_")
        return texts.get(query)

    return run


def test_a_disk_with_little_space_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, text in ((0, "no space left"), (40 * 2**20, "40 MiB left")):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: Usage(free))
        found = machine_checks.low_space(tmp_path / "state")
        assert found is not None
        assert found.startswith(f"{text} on the disk of {tmp_path}")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(2**31))
    assert machine_checks.low_space(tmp_path) is None


def test_a_clock_before_the_installation_is_wrong() -> None:
    assert machine_checks.clock(answers(), now=lambda: 0.0).mark == "missing"
    assert machine_checks.clock(answers(timedatectl="yes\n")).mark == "ok"
    assert machine_checks.clock(answers(timedatectl="no\n")).mark == "note"
    assert machine_checks.clock(answers()).mark == "ok"


def engine(folder: Path, cuda: str) -> Path:
    version = folder / "lib" / "python3.11" / "site-packages" / "torch" / "version.py"
    version.parent.mkdir(parents=True)
    version.write_text(f"__version__ = '2.13.0'\ncuda: Optional[str] = {cuda}\nhip: Optional[str] = None\n")
    return folder / "bin" / "python"


@pytest.mark.parametrize(("driver", "mark"), [("12.4", "missing"), ("13.0", "ok"), ("13.2", "ok")])
def test_a_driver_that_is_older_than_pytorchs_cuda_is_missing(tmp_path: Path, driver: str, mark: str) -> None:
    run = answers(query="NVIDIA H100, 9.0, 81559\n", nvidia_smi=f"| NVIDIA-SMI 550  CUDA Version: {driver}  |")
    found = machine_checks.gpu_support(engine(tmp_path, "'13.0'"), run)
    assert [each.mark for each in found] == ["ok", mark]


def test_an_old_gpu_and_a_cpu_build_are_described(tmp_path: Path) -> None:
    run = answers(query="Tesla P100, 6.0, 16384\n", nvidia_smi="CUDA Version: 13.0")
    assert [each.mark for each in machine_checks.gpu_support(engine(tmp_path, "None"), run)] == ["missing"]
    assert machine_checks.gpu_support(tmp_path / "none" / "bin" / "python", answers()) == []


def test_a_missing_compiler_is_a_note() -> None:
    assert machine_checks.compiler(lambda name: None).mark == "note"
    assert machine_checks.compiler(lambda name: "/usr/bin/cc" if name == "cc" else None).mark == "ok"
