"""A replica fills its pod."""

from pathlib import Path

from quarterdeck.engine.kuberay.profile import asgi_options, cluster_profile, weights_of
from quarterdeck.engine.machine import Machine
from quarterdeck.settings.engine import EngineConfig

HEAD = Machine(frozenset({"avx2"}), (0, 1), gpus=0, has_gpu_engine=True)


def test_a_gpu_replica_is_placed_from_a_head_without_gpus() -> None:
    engine = EngineConfig(source="org/m", accelerator="h100", tensor_parallel=2)
    profile = cluster_profile(engine, HEAD, None)
    assert (profile.kind, profile.placement, profile.accelerator_type) == ("gpu", None, None)
    assert profile.engine_kwargs["tensor_parallel_size"] == 2


def test_a_cpu_replica_takes_the_cpus_that_its_pod_offers() -> None:
    profile = cluster_profile(EngineConfig(source="/models/m", accelerator="cpu"), HEAD, "0-1")
    assert (profile.kind, profile.placement) == ("cpu", {"bundles": [{"CPU": 1}]})
    assert profile.env["VLLM_CPU_OMP_THREADS_BIND"] == "0-1"


def test_serve_does_not_scale_and_never_uses_rays_unbounded_defaults() -> None:
    for options in (
        asgi_options(),
        cluster_profile(EngineConfig(source="/m", accelerator="cpu"), HEAD, None).deployment,
    ):
        assert options["num_replicas"] == 1
        assert "autoscaling_config" not in options


def test_weights_are_not_looked_for_on_the_head_which_has_no_volumes() -> None:
    cache = Path("/cache")
    assert weights_of(EngineConfig(source="/weights/m"), cache) == "/weights/m"
    assert weights_of(EngineConfig(source="org/m"), cache) == "org/m"
    packaged = EngineConfig(source="packaged:smollm2-135m-instruct")
    assert weights_of(packaged, cache) == "/cache/models/smollm2-135m-instruct"
