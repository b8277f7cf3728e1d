"""The deployment process: deploys models on Ray Serve one after the other, and exits.

Building an application imports vLLM and torch: ten seconds and 700 MB, which the long-running engine door would keep.
The door writes the request as JSON to stdin once Ray has started (the imports are done by then) and reads progress from
a pipe whose file descriptor is the argument, one JSON object per line: {"model", "step": "preparing" | "deploying" |
"ready" | "failed", "detail"}.

On CPUs a model waits for the one before it: the first, a chat model, is ready sooner if no other starts at the same
time.
"""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.llm import LLMConfig, build_llm_deployment

from quarterdeck.engine.endpoints import last_line
from quarterdeck.engine.machine import Machine
from quarterdeck.engine.packaged import packaged, prepare
from quarterdeck.engine.profile import Profile, ProfileError, make_profile, slug
from quarterdeck.engine.server import ingress_class
from quarterdeck.settings.engine import EngineConfig

Report = Callable[[str, str, str], None]


def main() -> int:
    progress = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    request = json.loads(sys.stdin.readline())
    ray.init(address=request["address"], namespace="serve", log_to_driver=False)
    machine = Machine(
        cpu_flags=frozenset(request["machine"]["cpu_flags"]),
        cores=tuple(request["machine"]["cores"]),
        gpus=request["machine"]["gpus"],
        has_gpu_engine=request["machine"]["has_gpu_engine"],
    )
    report = partial(_report, progress)
    blocking = machine.gpus == 0
    for model in request["models"]:
        engine = EngineConfig.model_validate(model["engine"])
        base = Path(request["base"])
        try:
            profile = make_profile(engine, machine, thread_binding=request["thread_binding"])
            source = find_source(engine, base, Path(request["cache"]), partial(report, model["name"], "preparing"))
            report(model["name"], "deploying", "; ".join(["starting a replica", *profile.notes]))
            deploy(model["name"], source, profile, base, blocking=blocking)
        # A door: any failure of one model must not prevent the others from being deployed. The door logs it.
        except Exception as error:
            report(model["name"], "failed", last_line(str(error)) if str(error) else type(error).__name__)
        else:
            report(model["name"], "ready" if blocking else "deploying", "")
    ray.shutdown()
    return 0


def find_source(engine: EngineConfig, base: Path, cache: Path, report: Callable[[str], None]) -> str:
    """Return a folder or a Hugging Face id. A packaged model is prepared first.

    Raises ProfileError, PreparationError.
    """
    if engine.is_packaged:
        return str(prepare(packaged(engine), cache, report))
    if not engine.is_folder:
        return engine.source
    folder = base / Path(engine.source).expanduser()
    config = folder / "config.json"
    if not config.is_file():
        raise ProfileError(f"no model in {folder}: there is no config.json")
    if engine.quantization in ("awq", "gptq"):
        made = json.loads(config.read_text(encoding="utf-8")).get("quantization_config", {}).get("quant_method")
        if made != engine.quantization:
            raise ProfileError(
                f"quantization is '{engine.quantization}', but the weights are {made or 'not quantized'}"
            )
    return str(folder)


def llm_config(name: str, source: str, profile: Profile, base: Path) -> LLMConfig:
    kwargs = dict(profile.engine_kwargs)
    if template := kwargs.get("chat_template"):
        kwargs["chat_template"] = str(base / Path(template).expanduser())
    return LLMConfig(
        model_loading_config={"model_id": name, "model_source": source},
        accelerator_type=profile.accelerator_type,
        accelerator_config={"kind": profile.kind},
        placement_group_config=profile.placement,
        deployment_config=profile.deployment,
        engine_kwargs=kwargs,
        runtime_env={"env_vars": profile.env},
        log_engine_metrics=False,  # they are served by vLLM itself, at /metrics of the replica's port
    )


def deploy(name: str, source: str, profile: Profile, base: Path, *, blocking: bool) -> None:
    application = build_llm_deployment(
        llm_config(name, source, profile, base), deployment_cls=ingress_class(), name_prefix="engine:"
    )
    target = serve.RunTarget(target=application, name=slug(name), route_prefix=f"/{slug(name)}")
    serve.run_many([target], wait_for_applications_running=blocking)


def _report(progress: Any, model: str, step: str, detail: str) -> None:
    print(json.dumps({"model": model, "step": step, "detail": detail}), file=progress, flush=True)


if __name__ == "__main__":
    sys.exit(main())
