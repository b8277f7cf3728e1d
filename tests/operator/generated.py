"""Specs of Models as a user might write them, valid and nearly so, for property tests."""

from typing import Any

from hypothesis import strategies as st

_TEXT = st.text(min_size=1, max_size=12)
_ARGUMENT = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=5,
)
_ARGUMENTS = st.dictionaries(
    st.one_of(_TEXT, st.sampled_from(["max_num_seqs", "port", "enforce-eager", "gpu_memory_utilization"])),
    _ARGUMENT,
    max_size=4,
)
_URIS = st.one_of(
    st.sampled_from(
        [
            "org/name",
            "hf://org/name",
            "pvc://claim",
            "pvc://claim/a/b",
            "file:///models/a",
            "packaged:smollm2-135m-instruct",
            "s3://bucket/x",
            "pvc://claim/../x",
            "://",
            "hf://",
        ]
    ),
    _TEXT,
)
_CACHES = st.sampled_from(
    [{}, {"mode": "none"}, {"mode": "pvc", "size": "5Gi"}, {"mode": "pvc", "claim": "c"}, {"mode": "pvc"}]
)
_SOURCES = st.fixed_dictionaries(
    {"uri": _URIS},
    optional={
        "revision": _TEXT,
        "secretRef": st.just({"name": "hub", "key": "token"}),
        "cache": _CACHES,
    },
)
_PATCH = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), _TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.sampled_from(
                    [
                        *("metadata", "spec", "labels", "annotations", "containers", "name", "image", "env", "volumes"),
                        *("$patch", "$retainKeys", "$deleteFromPrimitiveList/finalizers", "tolerations", "ports"),
                        *("quarterdeck.dev/model", "containerPort", "securityContext", "initContainers"),
                    ]
                ),
                _TEXT,
            ),
            inner,
            max_size=4,
        ),
        st.sampled_from([[{"name": "engine"}], {"$patch": "delete"}, {"$patch": "replace"}, "engine"]),
    ),
    max_leaves=12,
)
_SCALINGS = st.fixed_dictionaries(
    {},
    optional={
        "min": st.integers(0, 5),
        "max": st.integers(1, 9),
        "target": st.integers(1, 50),
        "idleSeconds": st.integers(1, 1000),
        "replicas": st.integers(0, 12),
    },
)


def specs() -> st.SearchStrategy[dict[str, Any]]:
    """Specs in the form of the API. Some are refused by `Model.parse`."""
    return st.fixed_dictionaries(
        {},
        optional={
            "servedName": st.one_of(st.sampled_from(["gpt", "Org/Name:1"]), _TEXT),
            "aliases": st.lists(_TEXT, max_size=2),
            "source": _SOURCES,
            "engine": st.fixed_dictionaries(
                {},
                optional={
                    "type": st.sampled_from(["vllm", "sim"]),
                    "image": st.sampled_from(["registry:5000/a/b", "a@sha256:ab"]),
                    "version": st.just("v1"),
                    "args": _ARGUMENTS,
                    "env": st.dictionaries(st.sampled_from(["A", "HF_TOKEN", "HOME"]), _TEXT, max_size=2),
                },
            ),
            "task": st.sampled_from(["generate", "embed"]),
            "quantization": st.fixed_dictionaries(
                {"method": st.sampled_from(["auto", "none", "bitsandbytes", "int8", "fp8", "awq", "gptq"])}
            ),
            "context": st.integers(16, 200_000),
            "resources": st.fixed_dictionaries(
                {},
                optional={
                    "accelerator": st.sampled_from(["cpu", "h100", "unknown"]),
                    "gpus": st.integers(0, 8),
                    "tensorParallel": st.integers(1, 8),
                    "memory": st.sampled_from(["4Gi", "500M", 8]),
                },
            ),
            "scaling": _SCALINGS,
            "rollout": st.fixed_dictionaries(
                {}, optional={"strategy": st.sampled_from(["Surge", "Recreate"]), "drainSeconds": st.integers(0, 600)}
            ),
            "adapters": st.fixed_dictionaries({"max": st.integers(0, 8)}),
            "toolParser": _TEXT,
            "chatTemplate": _TEXT,
            "backend": st.sampled_from(["auto", "Deployment", "RayService"]),
            "suspend": st.booleans(),
            "podTemplatePatch": st.dictionaries(st.sampled_from(["metadata", "spec", "x"]), _PATCH, max_size=2),
            "endpoints": st.just([{"url": "http://10.0.0.7:8000"}]),
        },
    )
