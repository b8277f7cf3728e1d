import json
from typing import Any

import pytest

from quarterdeck.kube.compile.compiler import Compiled, compile_objects
from quarterdeck.kube.compile.conversion import EndpointKey
from quarterdeck.kube.compile.runtime import Canary, Runtime
from quarterdeck.kube.compiled import AdapterEntry
from quarterdeck.kube.conditions import Reason
from quarterdeck.settings.loading import parse


def obj(kind: str, name: str, spec: dict[str, Any], *, age: int = 0, **metadata: Any) -> dict[str, Any]:
    """`age`: seconds; of two objects the one with the larger age is older."""
    created = f"2026-01-01T00:{59 - age // 60:02}:{59 - age % 60:02}Z"
    return {
        "apiVersion": "quarterdeck.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "uid": f"uid-{kind}-{name}", "generation": 1, "creationTimestamp": created}
        | metadata,
        "spec": spec,
    }


def model(name: str, *, age: int = 0, **spec: Any) -> dict[str, Any]:
    return obj("Model", name, {"source": {"uri": f"org/{name}"}, **spec}, age=age)


def compiled(*objects: dict[str, Any], base: dict[str, Any] | None = None, **runtimes: Runtime) -> Compiled:
    result = compile_objects(base or {}, objects, runtimes)
    assert result.problem is None
    assert result.documents is not None
    assert parse(result.documents.config) == result.config  # gateways read it as YAML
    return result


def test_no_objects_make_an_empty_configuration() -> None:
    result = compiled()
    assert result.config is not None
    assert result.config.models == ()
    assert result.index.engines == {}


def test_a_model_becomes_an_entry_of_the_file_and_of_the_index() -> None:
    result = compiled(
        model(
            "llama",
            servedName="meta/llama",
            aliases=["gpt-4o-mini"],
            context=4096,
            price={"input": "0.05", "gpuHour": 2},
            engine={"args": {"max_num_seqs": 8}},
            scaling={"min": 0, "coldStart": {"mode": "Hold", "holdSeconds": 30}},
        ),
        llama=Runtime(state="Zero"),
    )
    (entry,) = json.loads(result.documents.config)["models"]  # type: ignore[union-attr]
    assert entry == {
        "name": "meta/llama",
        "aliases": ["gpt-4o-mini"],
        "engine": {"source": "org/llama", "context": 4096, "accelerator": "cpu"},
        "context": 4096,
        "price": {"input": "0.05", "gpu_hour": "2"},
        "cold_wait_seconds": 30.0,
    }
    engine = result.index.engines["llama"]
    assert (engine.model, engine.max_running, engine.state) == ("meta/llama", 8, "Zero")
    assert result.names == {"meta/llama": "llama"}


def test_a_model_that_rejects_while_cold_has_no_wait() -> None:
    result = compiled(model("a", scaling={"min": 0, "coldStart": {"mode": "Reject"}}))
    assert result.config is not None
    assert result.config.models[0].cold_wait_seconds == 0


def test_external_endpoints_read_their_key_from_a_file() -> None:
    body = obj(
        "Model",
        "ollama",
        {
            "endpoints": [
                {"url": "http://ollama:11434", "kind": "ollama", "secretRef": {"name": "keys", "key": "o.k"}},
                {"url": "http://other:1"},
            ]
        },
    )
    result = compiled(body)
    assert result.config is not None
    first, second = result.config.models[0].endpoints
    assert first.api_key_file == "/run/secrets/quarterdeck/endpoints/keys_o.k"
    assert second.api_key_file is None
    assert result.endpoint_keys == (EndpointKey("keys", "o.k"),)
    assert result.index.engines == {}


def test_keys_of_different_secrets_have_different_files() -> None:
    assert EndpointKey("a", "b.c").file != EndpointKey("a.b", "c").file
    long = EndpointKey("a" * 253, "b" * 253).file
    assert len(long) <= 253


def test_adapters_are_names_of_their_model_also_while_they_are_loaded_nowhere() -> None:
    adapter = obj("ModelAdapter", "french", {"modelRef": {"name": "llama"}, "source": {"uri": "org/french"}})
    objects = (model("llama", adapters={"max": 2}), adapter)
    result = compiled(*objects)
    assert result.config is not None
    assert result.config.models[0].engine is not None
    assert [each.name for each in result.config.models[0].engine.adapters] == ["french"]
    assert result.index.engines["llama"].adapters == {}
    assert result.names["french"] == "llama"

    loaded = AdapterEntry(engine_name="french@1", pods=("pod-1",))
    runtime = Runtime(state="Serving", adapters={"french": loaded, "another": loaded}, failed_adapters={"x": "y"})
    result = compiled(*objects, llama=runtime)
    assert result.index.engines["llama"].adapters == {"french": loaded}
    assert result.index.engines["llama"].failed_adapters == {}


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        (None, Reason.MODEL_NOT_FOUND, "no Model 'llama' that is accepted"),
        ({}, Reason.ADAPTERS_DISABLED, "set its spec.adapters.max"),
        ({"task": "embed"}, Reason.ADAPTERS_DISABLED, "external endpoints, or embeds"),
    ],
)
def test_an_adapter_without_a_model_that_takes_it_is_left_out(
    spec: dict[str, Any] | None, reason: Reason, message: str
) -> None:
    adapter = obj("ModelAdapter", "french", {"modelRef": {"name": "llama"}, "source": {"uri": "org/french"}})
    result = compiled(adapter, *([] if spec is None else [model("llama", **spec)]))
    verdict = result.verdicts["ModelAdapter", "french"]
    assert (verdict.is_accepted, verdict.is_resolved, verdict.resolved_reason) == (True, False, reason)
    assert message in verdict.resolved_message


def test_of_two_objects_with_one_name_the_older_one_has_it() -> None:
    result = compiled(
        model("young", servedName="llama", age=1),
        obj("ModelRoute", "llama", {"targets": [{"model": "other"}]}, age=3),
        model("other", aliases=["b"], age=2),
        model("b", age=1),
    )
    assert result.verdicts["Model", "young"].reason is Reason.NAME_CONFLICT
    assert result.verdicts["Model", "young"].message == "the name 'llama' belongs to ModelRoute llama"
    assert result.verdicts["Model", "b"].message == "the name 'b' belongs to Model other"
    assert result.verdicts["ModelRoute", "llama"].is_accepted


def test_an_object_that_loses_one_name_leaves_its_others_to_younger_ones() -> None:
    result = compiled(
        model("first", age=3),
        model("second", servedName="x", aliases=["first"], age=2),
        model("third", servedName="x", age=1),
    )
    assert not result.verdicts["Model", "second"].is_accepted
    assert result.verdicts["Model", "third"].is_accepted


def test_names_of_the_platforms_configuration_go_before_all_objects() -> None:
    base = {"models": [{"name": "llama", "aliases": ["l"], "endpoints": [{"url": "http://x"}]}], "teams": {"red": {}}}
    result = compiled(model("m", aliases=["l"], age=9), obj("Team", "red", {}), obj("Team", "blue", {}), base=base)
    assert result.verdicts["Model", "m"].message == "the name 'l' belongs to the platform's configuration"
    assert result.verdicts["Team", "red"].reason is Reason.NAME_CONFLICT
    assert result.config is not None
    assert set(result.config.teams) == {"red", "blue"}
    assert [each.name for each in result.config.models] == ["llama"]


def test_a_route_leads_to_models_and_adapters() -> None:
    route = obj(
        "ModelRoute",
        "chat",
        {
            "targets": [{"model": "a", "weight": 3}, {"model": "gone", "weight": 1}],
            "fallbacks": [{"model": "b", "after": ["queue"]}, {"model": "alias"}],
            "mirror": {"model": "chat2", "share": 0.1},
            "cache": {"ttlSeconds": 60},
            "timeouts": {"firstToken": 5},
        },
    )
    other = obj("ModelRoute", "chat2", {"targets": [{"model": "a"}]})
    result = compiled(model("a"), model("b", aliases=["alias"]), route, other)
    assert result.config is not None
    found = next(each for each in result.config.routes if each.name == "chat")
    assert [each.model for each in found.targets] == ["a"]
    assert [each.model for each in found.fallbacks] == ["b"]
    assert found.mirror is None
    assert found.timeouts.first_token == 5
    assert result.config.cache.policies["chat"].ttl_seconds == 60
    verdict = result.verdicts["ModelRoute", "chat"]
    assert (verdict.is_accepted, verdict.is_resolved, verdict.is_compiled) == (True, False, True)
    assert verdict.resolved_message == (
        "no model or adapter 'gone'; 'alias' is an alias: name the model, 'b'; "
        "'chat2' is a route, and a route leads to models and adapters"
    )


def test_a_route_without_a_target_is_left_out_and_the_rest_lives() -> None:
    result = compiled(model("a"), obj("ModelRoute", "r", {"targets": [{"model": "gone"}, {"model": "a", "weight": 0}]}))
    assert result.config is not None
    assert result.config.routes == ()
    assert not result.verdicts["ModelRoute", "r"].is_compiled
    assert result.verdicts["Model", "a"].is_accepted


def test_a_canary_is_a_route_to_both_revisions() -> None:
    adapter = obj("ModelAdapter", "french", {"modelRef": {"name": "llama"}, "source": {"uri": "org/french"}})
    result = compiled(
        model("llama", servedName="meta/llama2", aliases=["l"], adapters={"max": 1}),
        model("b"),
        adapter,
        obj(
            "ModelRoute",
            "chat",
            {
                "targets": [{"model": "meta/llama2", "weight": 2}, {"model": "b"}],
                "fallbacks": [{"model": "meta/llama2"}],
            },
        ),
        base={"cache": {"policies": {"meta/llama2": {"ttl_seconds": 5}}}},
        llama=Runtime(state="Serving", canary=Canary("aaa", "bbb", 10)),
    )
    assert result.config is not None
    routes = {each.name: each for each in result.config.routes}
    expected = [("meta/llama2@aaa", 90), ("meta/llama2@bbb", 10)]
    for name in ("meta/llama2", "l"):
        assert [(each.model, each.weight) for each in routes[name].targets] == expected
    assert [(each.model, each.weight) for each in routes["chat"].targets] == [
        ("meta/llama2@aaa", 1.8),
        ("meta/llama2@bbb", 0.2),
        ("b", 1),
    ]
    assert [each.model for each in routes["chat"].fallbacks] == ["meta/llama2@aaa"]
    assert set(result.config.cache.policies) == {"meta/llama2", "l"}
    assert {
        key: (each.object, each.revision, each.model, each.engine_name) for key, each in result.index.engines.items()
    } == {
        "b": ("b", None, "b", None),
        "llama@aaa": ("llama", "aaa", "meta/llama2@aaa", "meta/llama2"),
        "llama@bbb": ("llama", "bbb", "meta/llama2@bbb", "meta/llama2"),
    }
    assert result.names == {
        "b": "b", "meta/llama2": "llama", "meta/llama2@aaa": "llama", "meta/llama2@bbb": "llama", "french": "llama"
    }  # fmt: skip
    models = {each.name: each for each in result.config.models}
    assert [[a.name for a in models[name].engine.adapters] for name, _ in expected] == [["french"], []]  # type: ignore[union-attr]


@pytest.mark.parametrize("weight", [0, 100])
def test_a_canary_may_have_no_or_all_requests(weight: int) -> None:
    result = compiled(model("a"), a=Runtime(canary=Canary("x", "y", weight)))
    assert result.config is not None
    assert [each.weight for each in result.config.routes[0].targets] == [100 - weight, weight]


def test_a_revision_cant_be_the_target_of_a_route() -> None:
    route = obj("ModelRoute", "r", {"targets": [{"model": "a@y"}]})
    result = compiled(model("a"), route, a=Runtime(canary=Canary("x", "y", 5)))
    assert result.verdicts["ModelRoute", "r"].resolved_message == "no model or adapter 'a@y'"


def test_an_invalid_object_harms_only_itself() -> None:
    result = compiled(
        obj("Model", "broken", {"source": {"uri": "not a source"}}),
        model("session", routing={"policy": "session", "session": "header:x-session"}),
        model("args", engine={"args": {"model": "x"}}),
        {"apiVersion": "quarterdeck.dev/v1alpha1", "kind": "Team", "metadata": {"name": "t"}, "spec": []},
        obj("Team", "fine", {"budget": {"amount": "5"}}),
        model("good"),
    )
    assert result.config is not None
    assert [each.name for each in result.config.models] == ["good"]
    assert set(result.config.teams) == {"fine"}
    messages = {name: verdict.message for (_, name), verdict in result.verdicts.items() if not verdict.is_accepted}
    assert messages["session"] == (
        "spec.routing.session: header 'x-session' is not in gateway.forward_headers of the platform"
    )
    assert "spec.source.uri: must be one of" in messages["broken"]
    assert "model is set by its own field: use source.uri instead" in messages["args"]
    assert set(messages) == {"broken", "session", "args", "t"}


def test_a_session_header_that_the_platform_forwards_is_accepted() -> None:
    body = model("a", routing={"policy": "session", "session": "header:x-session"})
    assert compiled(body, base={"gateway": {"forward_headers": ["x-session"]}}).verdicts["Model", "a"].is_accepted


def test_an_invalid_base_is_reported_and_nothing_is_compiled() -> None:
    result = compile_objects({"gateway": {"retries": 99}}, [model("a")], {})
    assert result.documents is None
    assert result.problem == (
        "the platform's configuration is invalid: gateway.retries: Input should be less than or equal to 5"
    )


def test_objects_that_are_being_deleted_give_their_names_back() -> None:
    gone = obj(
        "Model", "old", {"source": {"uri": "a/b"}, "servedName": "x"}, age=5, deletionTimestamp="2026-01-01T00:00:00Z"
    )
    result = compiled(gone, model("new", servedName="x"))
    assert result.verdicts["Model", "new"].is_accepted
    assert ("Model", "old") not in result.verdicts


def test_the_bases_own_values_stay() -> None:
    base = {"gateway": {"retries": 2}, "limits": {"requests_per_minute": 60}}
    result = compiled(model("a"), base=base)
    document = json.loads(result.documents.config)  # type: ignore[union-attr]
    assert {name: document[name] for name in base} == base


def test_conditions_of_a_verdict_name_its_generation() -> None:
    result = compiled(obj("ModelRoute", "r", {"targets": [{"model": "gone"}]}, generation=7))
    accepted, resolved = result.verdicts["ModelRoute", "r"].conditions(refers=True)
    assert (accepted.type, accepted.status, accepted.observed_generation) == ("Accepted", "True", 7)
    assert (resolved.type, resolved.status, resolved.reason) == ("ResolvedRefs", "False", "ModelNotFound")
