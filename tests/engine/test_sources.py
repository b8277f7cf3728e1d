"""A model's files before its engine starts."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.model_lifecycle.fake_runtime import models

from quarterdeck.engine.machine import Machine
from quarterdeck.engine.sources import Sources
from quarterdeck.model_lifecycle.gpus import OVERHEAD_BYTES, GpuNeed
from quarterdeck.model_lifecycle.runtime import Prepared, Progress, StartFailure
from quarterdeck.weights.downloads import Downloads
from quarterdeck.weights.errors import WeightsError
from quarterdeck.weights.local import Weights
from quarterdeck.weights.progress import Progress as DownloadProgress

GPUS = Machine(cpu_flags=frozenset(), cores=(0, 1), gpus=4, has_gpu_engine=True)
CPU = Machine(cpu_flags=frozenset(), cores=(0, 1), gpus=0, has_gpu_engine=False)


def write_model(folder: Path, parameters: int = 1000) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "BF16", "shape": [parameters]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


class FakeDownloads(Downloads):
    """Stands for a hub, which tests/weights has."""

    def __init__(self, folder: Path, error: WeightsError | None = None) -> None:
        super().__init__({}, folder)
        self._folder, self._error = folder, error

    def local(self, repository: str, revision: str | None = None) -> Weights | None:
        return None

    async def fetch(self, repository: str, revision: str | None = None, on_progress: Any = None) -> Weights:
        on_progress(DownloadProgress(34, 100, 11.0))
        if self._error is not None:
            raise self._error
        return Weights(folder=self._folder, repository=repository, revision="c0ffee", size=1)


async def prepare(downloads: Downloads, base: Path, seen: list[Progress] | None = None, **engine: Any) -> Prepared:
    sources = Sources(downloads, base, base / "cache", None)
    report = seen.append if seen is not None else lambda progress: None
    return await sources.prepare(models("a", **engine)["a"], CPU, report)


async def test_a_folder_is_measured(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", parameters=1_000_000)
    found = await prepare(Downloads({}, tmp_path), tmp_path, source="./m", kv_cache_gib=2)
    assert Path(found.source) == folder
    assert found.need is not None
    assert (found.need.weights, found.need.kv_cache) == (4_000_000, 2 << 30)
    assert found.version


async def test_a_hubs_repository_is_downloaded_and_served_from_its_folder(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "snapshot")
    seen: list[Progress] = []
    found = await prepare(FakeDownloads(folder), tmp_path, seen, source="org/m")
    assert (found.source, found.revision, found.version) == (str(folder), "c0ffee", "c0ffee")
    assert (seen[-1].phase, seen[-1].fraction, seen[-1].seconds_left) == ("downloading", 0.34, 6.0)
    assert seen[-1].detail.startswith("downloading 34 %")


async def test_a_refusal_of_the_hub_is_the_models_reason(tmp_path: Path) -> None:
    error = WeightsError("gated", "org/m is gated: accept its terms and set HF_TOKEN")
    with pytest.raises(StartFailure) as caught:
        await prepare(FakeDownloads(tmp_path, error), tmp_path, source="org/m")
    assert (caught.value.reason, caught.value.is_permanent) == ("gated", error.is_permanent)
    assert "HF_TOKEN" in caught.value.message


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"source": "./nowhere"}, "there is no config.json"),
        ({"source": "./m", "accelerator": "gpu"}, "there is no GPU here"),
        ({"source": "./m", "quantization": "awq"}, "the weights are not quantized"),
    ],
)
async def test_what_this_machine_cannot_serve_is_refused(tmp_path: Path, engine: dict[str, Any], said: str) -> None:
    write_model(tmp_path / "m")
    with pytest.raises(StartFailure, match=said) as caught:
        await prepare(Downloads({}, tmp_path), tmp_path, **engine)
    assert (caught.value.reason, caught.value.is_permanent) == ("refused", True)


async def test_on_gpus_the_need_is_of_each_gpu(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", parameters=1_000_000)
    config = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 256, "max_position_embeddings": 1024}
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "model.safetensors").open("ab") as file:
        file.truncate(2_000_000)
    sources = Sources(Downloads({}, tmp_path), tmp_path, tmp_path / "cache", None)
    autoscaling = {"min_replicas": 2, "max_replicas": 2}
    model = models("a", source="./m", tensor_parallel=2, autoscaling=autoscaling, args={"gpu_memory_utilization": 0.5})
    found = await sources.prepare(model["a"], GPUS, lambda progress: None)
    kv_cache = 9 * 128 * (2 * 2 * 256) * 2
    assert found.need is None
    assert found.gpu_need == GpuNeed(4, (2_000_000 + kv_cache) // 2 + OVERHEAD_BYTES, 0.5)
