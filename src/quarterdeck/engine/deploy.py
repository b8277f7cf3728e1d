"""The deployment process: has Ray Serve start models, one after the other, until its stdin is closed.

Building an application imports vLLM and torch: ten seconds and 700 MB, which the long-running engine door would keep.
The door writes requests to stdin, one JSON object per line, and reads answers from a pipe whose file descriptor is the
argument: {"app", "error"}, with an empty error once Serve starts the replicas. The first request is written once Ray
has started; the imports are done by then.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.llm import LLMConfig, build_llm_deployment

from quarterdeck.engine.endpoints import last_line
from quarterdeck.engine.machine import Machine
from quarterdeck.engine.profile import Profile, make_profile
from quarterdeck.engine.server import ingress_class
from quarterdeck.model_lifecycle.kv_cache import read_kv_shape
from quarterdeck.settings.engine import EngineConfig


def main() -> int:
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    is_connected = False
    for line in sys.stdin:
        request = json.loads(line)
        if not is_connected:
            ray.init(address=request["address"], namespace="serve", log_to_driver=False)
            is_connected = True
        error = ""
        try:
            _deploy(request)
        # A door: a model that can't be deployed must not keep the next from it. The engine door logs the reason.
        except Exception as problem:
            error = last_line(str(problem)) if str(problem) else type(problem).__name__
        print(json.dumps({"app": request["app"], "error": error}), file=answers, flush=True)
    if is_connected:
        ray.shutdown()
    return 0


def _deploy(request: dict[str, Any]) -> None:
    engine = EngineConfig.model_validate(request["engine"])
    machine = Machine(
        cpu_flags=frozenset(request["machine"]["cpu_flags"]),
        cores=tuple(request["machine"]["cores"]),
        gpus=request["machine"]["gpus"],
        has_gpu_engine=request["machine"]["has_gpu_engine"],
    )
    shape = read_kv_shape(Path(request["source"]))
    profile = make_profile(engine, machine, thread_binding=request["thread_binding"], kv_shape=shape)
    application = build_llm_deployment(
        llm_config(request["name"], request["source"], profile, Path(request["base"])),
        deployment_cls=ingress_class(),
        name_prefix="engine:",
    )
    target = serve.RunTarget(target=application, name=request["app"], route_prefix=f"/{request['app']}")
    serve.run_many([target], wait_for_applications_running=False)


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
        runtime_env={"env_vars": {**({"HF_HUB_OFFLINE": "1"} if source.startswith("/") else {}), **profile.env}},
        log_engine_metrics=False,  # they are served by vLLM itself, at /metrics of the replica's port
    )


if __name__ == "__main__":
    sys.exit(main())
