"""Custom resources that an API server takes, and those that it refuses, with the words it has for them.

Used with the parser alone (tests/kube) and on a real API server (tests/cluster).
"""

from typing import Any

API = "quarterdeck.dev/v1alpha1"
GOOD = None
ENDPOINTS = [{"url": "http://x:8000"}]
HUB = {"uri": "org/name"}


def model(**spec: Any) -> dict[str, Any]:
    return {"source": HUB, **spec}


def step(*weights: int) -> dict[str, Any]:
    return {"rollout": {"canary": {"steps": [{"weight": weight} for weight in weights]}}}


def cache(**fields: Any) -> dict[str, Any]:
    return {"source": {**HUB, "cache": fields}}


def endpoint(**fields: Any) -> dict[str, Any]:
    return {"endpoints": [{"url": "http://x:8000", **fields}]}


def route(*targets: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"targets": list(targets) or [{"model": "a"}], **spec}


def adapter(uri: str = "org/name", **spec: Any) -> dict[str, Any]:
    return {"modelRef": {"name": "llama"}, "source": {"uri": uri}, **spec}


CASES: list[tuple[str, dict[str, Any], str | None]] = [
    # ---- Model: source and endpoints
    ("Model", {"source": HUB}, GOOD),
    ("Model", {"source": {"uri": "hf://org/name", "revision": "main", "secretRef": {"name": "s", "key": "k"}}}, GOOD),
    ("Model", {"source": {"uri": "pvc://claim/path"}}, GOOD),
    ("Model", {"source": {"uri": "file:///models/x"}}, GOOD),
    ("Model", {"source": {"uri": "packaged:smollm2-135m-instruct"}}, GOOD),
    ("Model", {"engine": {"type": "sim"}}, GOOD),
    ("Model", {"endpoints": ENDPOINTS}, GOOD),
    ("Model", {}, "set either source"),
    ("Model", {"source": HUB, "endpoints": ENDPOINTS}, "set either source"),
    ("Model", {"engine": {"type": "sim"}, "endpoints": ENDPOINTS}, "set either source"),
    ("Model", {"source": {"uri": "s3://bucket/key"}}, "must be one of hf://org/name"),
    ("Model", {"source": {"uri": "org/../name"}}, "must be one of hf://org/name"),
    ("Model", {"source": {"uri": "pvc://claim/../other"}}, "must be one of hf://org/name"),
    ("Model", {"source": {"uri": ""}}, "should be at least 1 chars long"),
    ("Model", {"source": {"uri": "file:///m", "revision": "main"}}, "are for sources on the hub"),
    ("Model", {"source": {"uri": "packaged:m", "cache": {"mode": "pvc", "claim": "c"}}}, "are for sources on the hub"),
    ("Model", cache(mode="pvc", size="50Gi", storageClass="fast"), GOOD),
    ("Model", cache(mode="pvc"), "mode pvc needs either claim or size"),
    ("Model", cache(mode="pvc", claim="c", size="1Gi"), "mode pvc needs either claim or size"),
    ("Model", cache(size="1Gi"), "mode pvc needs either claim or size"),
    ("Model", cache(mode="pvc", claim="c", storageClass="fast"), "storageClass is for a claim that `size` creates"),
    ("Model", cache(mode="pvc", size="large"), "should match"),
    # ---- Model: names
    ("Model", model(servedName="Org/Model:7b", aliases=["gpt-4o"]), GOOD),
    ("Model", model(servedName="prompt:x"), "are prompts"),
    ("Model", model(aliases=["prompt:x"]), "are prompts"),
    ("Model", model(servedName="name@revision"), "should match"),
    ("Model", model(servedName="x", aliases=["x"]), "must not be among the aliases"),
    ("Model", model(aliases=["a-model"]), "must not be among the aliases"),
    ("Model", model(aliases=["x", "x"]), "Duplicate value"),
    ("Model", model(nonsense=1), "unknown field"),
    # ---- Model: engine
    ("Model", model(engine={"version": "v0.29.0", "args": {"a": {"b": [1, None]}}, "env": {"VLLM_X": "1"}}), GOOD),
    ("Model", model(engine={"image": "a", "version": "b"}), "set image or version, not both"),
    ("Model", model(engine={"env": {"1BAD": "x"}}), "names must match"),
    ("Model", model(engine={"type": "sglang"}), "Unsupported value"),
    ("Model", model(quantization={"method": "bitsandbytes", "dtype": "bfloat16"}), GOOD),
    (
        "Model",
        model(quantization={"method": "bitsandbytes", "dtype": "float32"}),
        "bitsandbytes requires dtype bfloat16",
    ),
    ("Model", model(quantization={"method": "fp8"}), "fp8 needs a GPU"),
    ("Model", model(quantization={"method": "fp8"}, resources={"accelerator": "l4"}), GOOD),
    ("Model", model(quantization={"method": "int3"}), "Unsupported value"),
    ("Model", {"source": {"uri": "packaged:m"}, "quantization": {"method": "awq"}}, "require weights made for them"),
    ("Model", model(resources={"accelerator": "h100", "gpus": 8, "tensorParallel": 4, "pipelineParallel": 2}), GOOD),
    ("Model", model(resources={"accelerator": "h100", "gpus": 4, "tensorParallel": 8}), "gpus must be at least"),
    ("Model", model(resources={"gpus": 1}), "gpus need an accelerator"),
    ("Model", model(resources={"cpu": 2, "memory": "8Gi", "shm": "1Gi"}), GOOD),
    ("Model", model(resources={"memory": "8 GB"}), "should match"),
    ("Model", model(context=8), "should be greater than or equal to 16"),
    ("Model", model(context=4096, maxOutputTokens=8192), "maxOutputTokens must not be more than context"),
    ("Model", model(task="embed", tooLong="truncate"), GOOD),
    ("Model", model(task="embed", toolParser="hermes"), "are for models that generate"),
    ("Model", model(task="embed", adapters={"max": 1}), "are for models that generate"),
    ("Model", model(tooLong="refuse"), "tooLong is for models that embed"),
    ("Model", model(adapters={"max": 4, "maxRank": 64}), GOOD),
    ("Model", model(adapters={"maxRank": 63}), "Unsupported value"),
    ("Model", endpoint() | {"suspend": True}, "are for an engine in the cluster"),
    ("Model", endpoint() | {"podTemplatePatch": {"spec": {}}}, "are for an engine in the cluster"),
    ("Model", endpoint() | {"adapters": {"max": 1}}, "are for an engine in the cluster"),
    # ---- Model: scaling and rollout
    ("Model", model(scaling={"min": 0, "max": 4, "target": 8, "coldStart": {"mode": "Reject"}}), GOOD),
    ("Model", model(scaling={"min": 5}), GOOD),
    ("Model", model(scaling={"min": 5, "max": 4}), "min must not be more than max"),
    ("Model", model(scaling={"max": 0}), "should be greater than or equal to 1"),
    ("Model", model(scaling={"coldStart": {"holdSeconds": 901}}), "should be less than or equal to 900"),
    ("Model", model(**step(5, 25, 100)), GOOD),
    ("Model", model(**step(25, 5)), "weights of the steps must ascend"),
    ("Model", model(**step(5, 5)), "weights of the steps must ascend"),
    ("Model", model(**step(101)), "should be less than or equal to 100"),
    ("Model", model(**step()), "should have at least 1 items"),
    ("Model", model(rollout={"strategy": "Recreate", **step(5)["rollout"]}), "a canary needs both revisions"),
    ("Model", model(backend="RayService", **step(5)), "rollout.canary is for the Deployment backend"),
    ("Model", model(podTemplatePatch={"spec": {"nodeSelector": {"a": "b"}}}, suspend=True, backend="RayService"), GOOD),
    # ---- Model: price, routing, endpoints
    ("Model", model(price={"input": "0.05", "output": 1, "gpuHour": "2.5"}), GOOD),
    ("Model", model(price={"input": "-1"}), "should match"),
    ("Model", model(price={"input": -1}), "should be greater than or equal to 0"),
    ("Model", model(routing={"policy": "session", "session": "header:x-session", "loadBound": 1.5}), GOOD),
    ("Model", model(routing={"policy": "random"}), "Unsupported value"),
    ("Model", model(content="full"), GOOD),
    ("Model", endpoint(kind="ollama", maxRunning=4, health={"path": "/", "intervalSeconds": 5}), GOOD),
    ("Model", endpoint(secretRef={"name": "s", "key": "k"}, headers={"x-a": "b"}), GOOD),
    ("Model", endpoint(url="ftp://x"), "must be http(s)://host"),
    ("Model", endpoint(url="http://user@host"), "must be http(s)://host"),
    ("Model", endpoint(url="http://x/?a=1"), "needs `kind: openai`"),
    ("Model", endpoint(url="http://x/?a=1", kind="openai"), GOOD),
    ("Model", endpoint(omit=["messages"]), "a request without model"),
    ("Model", endpoint(apiKeyEnv="X"), "unknown field"),
    ("Model", endpoint(secretRef={"name": "s"}), "Required value"),
    # ---- ModelAdapter
    ("ModelAdapter", adapter(), GOOD),
    ("ModelAdapter", adapter("pvc://claim/folder", servedName="fr"), GOOD),
    ("ModelAdapter", adapter("packaged:x"), "must be one of hf://org/name"),
    ("ModelAdapter", {"source": HUB}, "spec.modelRef: Required value"),
    ("ModelAdapter", adapter(servedName="prompt:x"), "are prompts"),
    (
        "ModelAdapter",
        {"modelRef": {"name": "m"}, "source": {"uri": "file:///a", "revision": "b"}},
        "sources on the hub",
    ),
    # ---- ModelRoute
    ("ModelRoute", route({"model": "a", "weight": 0.5}, {"model": "b"}, stickiness="session", retries=2), GOOD),
    ("ModelRoute", route(fallbacks=[{"model": "b", "after": ["queue"]}], mirror={"model": "c", "share": 0.1}), GOOD),
    ("ModelRoute", route(timeouts={"firstToken": 5}, cache={"ttlSeconds": 60, "scope": "org"}), GOOD),
    ("ModelRoute", {"targets": []}, "should have at least 1 items"),
    ("ModelRoute", route({"model": "a", "weight": 0}), "requires a weight above 0"),
    ("ModelRoute", route({"model": "a"}, {"model": "a"}), "each model can be a target only once"),
    ("ModelRoute", route(servedName="a"), "a route can't lead to itself"),
    ("ModelRoute", route({"model": "a-modelroute"}), "a route can't lead to itself"),
    ("ModelRoute", route(fallbacks=[{"model": "a-modelroute"}]), "a route can't lead to itself"),
    ("ModelRoute", route(fallbacks=[{"model": "b", "after": ["monday"]}]), "Unsupported value"),
    ("ModelRoute", route(mirror={"model": "c", "share": 0}), "should be greater than 0"),
    (
        "ModelRoute",
        route(cache={"exact": False, "semantic": {"embeddingModel": "e"}}),
        "semantic needs the exact cache",
    ),
    ("ModelRoute", route(timeouts={"total": 0}), "should be greater than 0"),
    # ---- Team
    ("Team", {}, GOOD),
    ("Team", {"limits": {"requestsPerMinute": 60}, "budget": {"amount": "100", "period": "week"}, "priority": 9}, GOOD),
    ("Team", {"budget": {"amount": "0.00"}}, "must be more than 0 dollars"),
    ("Team", {"budget": {"amount": 0}}, "should be greater than 0"),
    ("Team", {"budget": {"amount": "many"}}, "should match"),
    ("Team", {"budget": {"period": "day"}}, "spec.budget.amount: Required value"),
    ("Team", {"limits": {"requestsPerMinute": 0}}, "should be greater than 0"),
    ("Team", {"priority": 10}, "should be less than or equal to 9"),
    ("Team", {"name": "a team"}, "should match"),
    # ---- Prompt
    ("Prompt", {"text": "Hello {{ name }}", "labels": ["production"]}, GOOD),
    ("Prompt", {"messages": [{"role": "user", "content": [{"type": "text", "text": "{{ x }}"}]}]}, GOOD),
    ("Prompt", {"messages": [{"role": "user", "content": "a"}, {"placeholder": "history"}]}, GOOD),
    ("Prompt", {"text": "a", "variables": {"x": {"type": "integer", "default": None, "enum": [1, "a"]}}}, GOOD),
    ("Prompt", {"text": "a", "parameters": {"temperature": 0.2}, "responseFormat": {"type": "json_object"}}, GOOD),
    ("Prompt", {"text": "a", "messages": [{"role": "user", "content": "a"}]}, "either text or messages"),
    ("Prompt", {"model": "a"}, "either text or messages"),
    ("Prompt", {"text": "a", "tools": [{"type": "function"}]}, "belong to a prompt with messages"),
    ("Prompt", {"messages": [{"role": "user", "placeholder": "x"}]}, "a message has a role and content"),
    ("Prompt", {"messages": []}, "should have at least 1 items"),
    ("Prompt", {"text": "a", "variables": {"1x": {}}}, "names must match"),
    ("Prompt", {"text": "a", "labels": ["Production"]}, "should match"),
    ("Prompt", {"text": "a", "name": "support/answer"}, GOOD),
]


def manifest(kind: str, spec: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name or f"a-{kind.lower()}"}, "spec": spec}
