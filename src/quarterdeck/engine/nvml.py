"""Memory of this machine's NVIDIA GPUs, from the driver's NVML."""

import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from quarterdeck.model_lifecycle.gpus import Gpu

log = logging.getLogger(__name__)


class Nvml:
    """Reads GPUs. Without the driver, or without the package `nvidia-ml-py`, there are none."""

    def __init__(self, environ: Mapping[str, str], load: Callable[[], Any] = lambda: import_module("pynvml")) -> None:
        """`load`: the module, imported at the first reading."""
        self._environ, self._load = environ, load
        self._module: Any = None
        self._is_absent = False

    def read(self) -> tuple[Gpu, ...]:
        """The GPUs that processes of this environment can use (CUDA_VISIBLE_DEVICES). Empty: not known. Blocks."""
        nvml = self._loaded()
        if nvml is None:
            return ()
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
            visible = [each for index, each in enumerate(handles) if self._is_visible(nvml, index, each)]
            return tuple(_gpu(nvml, each) for each in visible)
        except nvml.NVMLError as error:  # a GPU that was lost, or that has no memory of its own
            log.debug("the memory of GPUs is not known: %s", error)
            return ()

    def _loaded(self) -> Any:
        """NVML. None: it is not here."""
        if self._module is None and not self._is_absent:
            try:
                module = self._load()
                module.nvmlInit()
            # ImportError, or an NVMLError, whose class is in the module: without figures vLLM decides.
            except Exception as error:
                log.info("the memory of GPUs is not known: %s", error)
                self._is_absent = True
            else:
                self._module = module
        return self._module

    def _is_visible(self, nvml: Any, index: int, handle: Any) -> bool:
        visible = self._environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            return True
        wanted = [each.strip() for each in visible.split(",")]
        uuid = nvml.nvmlDeviceGetUUID(handle)
        uuid = uuid.decode() if isinstance(uuid, bytes) else uuid
        return any(each and (each == str(index) or (not each.isdigit() and uuid.startswith(each))) for each in wanted)


def _gpu(nvml: Any, handle: Any) -> Gpu:
    memory, name = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetName(handle)
    held = _held(nvml, handle)
    return Gpu(name.decode() if isinstance(name, bytes) else name, memory.total, memory.free, held)


def _held(nvml: Any, handle: Any) -> dict[int, int]:
    try:
        running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError as error:  # not supported
        log.debug("the processes of a GPU are not known: %s", error)
        return {}
    return {each.pid: each.usedGpuMemory for each in running if each.usedGpuMemory}
