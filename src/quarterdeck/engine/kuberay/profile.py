"""How a replica is placed that has a pod of its own. Pure.

The worker pods offer one CPU to Ray for each device, and the head none: so a replica fills its pod, whatever the pod's
real share of the machine.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from quarterdeck.engine.machine import Machine
from quarterdeck.engine.packaged import folder_of, packaged
from quarterdeck.engine.profile import Profile, make_profile, serve_options
from quarterdeck.settings.engine import EngineConfig


def asgi_options() -> dict[str, Any]:
    """Serve's options of an engine that is an ASGI app."""
    return {**serve_options(), "ray_actor_options": {"num_cpus": 1}, "num_replicas": 1}


def cluster_profile(engine: EngineConfig, machine: Machine, thread_binding: str | None) -> Profile:
    """`machine`: where this runs, the head; a replica's GPUs are those of its pod. Raises ProfileError."""
    is_gpu = engine.accelerator not in ("auto", "cpu")
    gpus = engine.devices if is_gpu else 0
    profile = make_profile(engine, replace(machine, gpus=gpus), thread_binding=thread_binding)
    options = {**serve_options(), "ray_actor_options": profile.deployment["ray_actor_options"], "num_replicas": 1}
    placement = profile.placement if is_gpu else {"bundles": [{"CPU": 1}] * engine.devices}
    # The pod's node selector chooses the type of GPU, so Ray need not know it.
    return replace(profile, deployment=options, placement=placement, accelerator_type=None)


def weights_of(engine: EngineConfig, cache: Path) -> str:
    """A folder of the worker pods, or a Hugging Face id. A packaged model lies in the image. Raises PreparationError.

    Not looked at here: the head has no volumes of the model.
    """
    if engine.is_packaged:
        return str(folder_of(packaged(engine).name, cache))
    return engine.source
