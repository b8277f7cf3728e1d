"""GPUs as the driver lists them. The module `pynvml` is a fake: there is no GPU here."""

from types import SimpleNamespace
from typing import Any

import pytest

from quarterdeck.engine.nvml import Nvml
from quarterdeck.model_lifecycle.gpus import Gpu


class NVMLError(Exception):
    pass


class FakeNvml:
    """The functions of nvidia-ml-py that are called, with their names and results."""

    NVMLError = NVMLError

    def __init__(self, *free: int) -> None:
        self.free = free
        self.inits = 0
        self.is_lost = False
        self.processes: dict[int, list[tuple[int, int | None]]] = {}
        """Pids and bytes of the processes on a GPU; None where the driver does not know the bytes."""

    def nvmlInit(self) -> None:
        self.inits += 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.free)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA L4"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}a5c"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        if self.is_lost:
            raise NVMLError("GPU is lost")
        return SimpleNamespace(total=24, free=self.free[handle], used=24 - self.free[handle])

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        if handle not in self.processes:
            raise NVMLError("Not Supported")
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in self.processes[handle]]


@pytest.mark.parametrize(
    ("visible", "free"),
    [(None, [20, 3]), ("1", [3]), ("0,1", [20, 3]), ("GPU-1", [3]), ("", []), ("-1", [])],
)
def test_gpus_that_processes_may_use_are_read(visible: str | None, free: list[int]) -> None:
    nvml = FakeNvml(20, 3)
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert Nvml(environ, lambda: nvml).read() == tuple(Gpu("NVIDIA L4", 24, each) for each in free)


def test_the_driver_is_opened_once_and_asked_each_time() -> None:
    nvml = FakeNvml(20)
    reader = Nvml({}, lambda: nvml)
    reader.read()
    nvml.free = (5,)
    assert reader.read() == (Gpu("NVIDIA L4", 24, 5),)
    assert nvml.inits == 1


def test_what_processes_hold_is_read_where_the_driver_knows_it() -> None:
    nvml = FakeNvml(20, 3)
    nvml.processes[0] = [(7, 12), (8, None)]
    first, second = Nvml({}, lambda: nvml).read()
    assert (dict(first.held), dict(second.held)) == ({7: 12}, {})


def test_a_gpu_that_is_lost_for_a_moment_is_read_again() -> None:
    nvml = FakeNvml(20)
    reader = Nvml({}, lambda: nvml)
    nvml.is_lost = True
    assert reader.read() == ()
    nvml.is_lost = False
    assert reader.read() == (Gpu("NVIDIA L4", 24, 20),)


def test_a_machine_without_nvml_has_no_figures() -> None:
    def load() -> Any:
        raise ImportError("No module named 'pynvml'")

    assert Nvml({}, load).read() == ()
