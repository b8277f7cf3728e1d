"""Checks of `doctor` that look at the machine: disks, clock, GPU drivers, compilers. Each takes what it judges."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from quarterdeck.cli.findings import Finding

GIB = 2**30
LOW_SPACE = GIB
"""Free space of the state folder below which `doctor` and `up` warn: an hour of logs and records of a busy platform."""
MIN_COMPUTE = (7, 0)
"""The oldest GPUs that vLLM supports (Volta)."""

Run = Callable[[Sequence[str]], str | None]
"""Runs a command; returns its output, or None if it is missing or fails."""


def output_of(command: Sequence[str]) -> str | None:
    """The standard output of a command. None: it is missing, or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def low_space(folder: Path) -> str | None:
    """Why the folder's disk has too little space, in words. None: it has enough, or can't be asked."""
    try:
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
    except OSError:
        return None
    if free >= LOW_SPACE:
        return None
    left = f"{free / 2**20:.0f} MiB left" if free >= 2**20 else "no space left"
    return f"{left} on the disk of {folder}: when it is full, no request is recorded and no key can be created"


def clock(run: Run = output_of, now: Callable[[], float] = time.time, program: Path = Path(__file__)) -> Finding:
    """A wrong clock shifts budgets' periods, expiries of keys and times of records."""
    try:
        installed = program.stat().st_mtime
    except OSError:
        installed = 0.0
    if now() < installed - 86_400:
        date = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now()))
        return Finding("missing", f"clock: {date} UTC is before this program was installed", "set the clock")
    synchronized = run(("timedatectl", "show", "--property=NTPSynchronized", "--value"))
    if synchronized is None:
        return Finding("ok", "clock: plausible (timedatectl can't say whether it is synchronized)")
    if synchronized.strip() != "yes":
        how = "`timedatectl set-ntp true`; budgets and expiries of keys go by it"
        return Finding("note", "clock: not synchronized by NTP", how)
    return Finding("ok", "clock: synchronized by NTP")


def gpu_support(engine_python: Path, run: Run = output_of) -> list[Finding]:
    """Whether vLLM runs on the GPUs and with their driver. Empty: there are none."""
    rows = run(("nvidia-smi", "--query-gpu=name,compute_cap,memory.total", "--format=csv,noheader,nounits"))
    if not rows:
        return []
    found = []
    for row in rows.strip().splitlines():
        name, compute, memory = ([part.strip() for part in row.split(",")] + ["", "", ""])[:3]
        version = _version(compute)
        if version is not None and version < MIN_COMPUTE:
            how = f"vLLM needs {MIN_COMPUTE[0]}.{MIN_COMPUTE[1]} or newer"
            found.append(Finding("missing", f"{name}: compute capability {compute}", how))
        elif version is not None:
            found.append(Finding("ok", f"{name}: compute capability {compute}, {memory} MiB"))
    if finding := _driver(engine_python, run):
        found.append(finding)
    return found


def _driver(engine_python: Path, run: Run) -> Finding | None:
    """The CUDA version that the driver supports, beside the one that the engine's PyTorch was built for."""
    header = re.search(r"CUDA Version:\s*(\d+\.\d+)", run(("nvidia-smi",)) or "")
    built = torch_cuda(engine_python)
    if header is None or built is None:
        return None
    driver, needed = _version(header[1]), _version(built)
    if driver is None or needed is None:
        return None
    if driver[0] < needed[0]:
        text = f"GPU driver: supports CUDA {header[1]}, PyTorch is built for {built}"
        return Finding("missing", text, "install a newer NVIDIA driver")
    return Finding("ok", f"GPU driver: supports CUDA {header[1]} (PyTorch: {built})")


def torch_cuda(engine_python: Path) -> str | None:
    """The CUDA version of the engine's PyTorch, from its files: importing it takes seconds. None: none, or for CPUs."""
    for file in engine_python.parent.parent.glob("lib/python3*/site-packages/torch/version.py"):
        try:
            found = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", file.read_text(encoding="utf-8"), re.MULTILINE)
        except OSError:
            return None
        return found[1] if found else None
    return None


def compiler(which: Callable[[str], str | None] = shutil.which) -> Finding:
    """vLLM compiles kernels when a model starts (Triton, torch.compile)."""
    if found := which("cc") or which("gcc") or which("clang"):
        return Finding("ok", f"C compiler: {found}")
    return Finding("note", "no C compiler", "vLLM compiles kernels for some models: `apt install gcc libc6-dev`")


def _version(text: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d+)(?:\.(\d+))?.*", text)
    return (int(found[1]), int(found[2] or 0)) if found else None
