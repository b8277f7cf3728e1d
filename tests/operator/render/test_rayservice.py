"""A Model as a RayService: what is rendered, what an edit does, and how the running cluster is scaled."""

import json
from typing import Any

import pytest

from quarterdeck.engine.kuberay.drain import REPLICA_PORTS
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.serve_application import IMPORT_PATH, ServeArguments
from quarterdeck.operator.render import rayservice
from quarterdeck.operator.render.request import Change, RenderRequest
from quarterdeck.operator.settings import OperatorConfig

CONFIG = OperatorConfig.model_validate(
    {
        "images": {"ray": "ray:1", "rayCpu": "ray-cpu:1", "raySim": "ray-sim:1"},
        "ray": {"tokenSecret": "qd-ray-token"},
        "accelerators": {"h100": {"nodeSelector": {"gpu": "h100"}, "tolerations": [{"key": "gpu"}]}},
    }
)
VLLM = {
    "source": {"uri": "hf://org/model", "revision": "v1"},
    "resources": {"accelerator": "h100", "tensorParallel": 2},
}
SIM = {"engine": {"type": "sim", "args": {"time-to-first-token": "5ms"}}}


def _request(spec: dict[str, Any], replicas: int = 1, name: str = "chat") -> RenderRequest:
    body = {
        "apiVersion": "quarterdeck.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name, "namespace": "ns", "uid": "u-1", "generation": 1},
        "spec": spec,
    }
    return RenderRequest(Model.parse(body), "ns", CONFIG, replicas)


def _objects(request: RenderRequest) -> dict[str, dict[str, Any]]:
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in rayservice.render(request)}


def _service(request: RenderRequest) -> dict[str, Any]:
    return _objects(request)["RayService/model-chat"]


def _cluster(request: RenderRequest) -> dict[str, Any]:
    found: dict[str, Any] = _service(request)["spec"]["rayClusterConfig"]
    return found


def _serve(request: RenderRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_service(request)["spec"]["serveConfigV2"])
    return found


def _change(before: dict[str, Any], after: dict[str, Any], replicas: tuple[int, int] = (1, 1)) -> Change:
    then = _request(after, replicas[1])
    return rayservice.classify(then, rayservice.render(then), rayservice.render(_request(before, replicas[0])))


def test_a_replica_of_two_gpus_is_a_worker_pod_on_a_node_that_has_them_and_the_head_takes_none() -> None:
    cluster = _cluster(_request(VLLM, 3))
    (group,) = cluster["workerGroupSpecs"]
    worker, head = group["template"]["spec"], cluster["headGroupSpec"]["template"]["spec"]
    assert (group["replicas"], group["rayStartParams"]["num-gpus"]) == (3, "2")
    assert group["rayStartParams"]["metrics-export-port"] == "8080"
    assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert (worker["nodeSelector"], worker["tolerations"]) == ({"gpu": "h100"}, [{"key": "gpu"}])
    assert "nodeSelector" not in head
    assert "nvidia.com/gpu" not in json.dumps(head)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_serve_gets_the_models_arguments_and_bounded_queues() -> None:
    (app,) = _serve(_request({**VLLM, "engine": {"args": {"max_num_seqs": 8}}}, 2))["applications"]
    (deployment,) = app["deployments"]
    assert app["import_path"] == IMPORT_PATH
    assert deployment["num_replicas"] == 2
    assert (deployment["max_ongoing_requests"], deployment["max_queued_requests"]) == (8, 32)
    assert deployment["graceful_shutdown_timeout_s"] == 120
    arguments = ServeArguments.model_validate(app["args"])
    assert arguments.engine is not None
    assert (arguments.model, arguments.engine.source, arguments.engine.tensor_parallel) == ("chat", "org/model", 2)
    assert arguments.engine.args == {"max_num_seqs": 8, "revision": "v1"}


def test_a_simulated_engine_runs_in_ray_without_vllm() -> None:
    request = _request(SIM)
    (app,) = _serve(request)["applications"]
    arguments = ServeArguments.model_validate(app["args"])
    assert arguments.app is not None
    assert arguments.app.options["time_to_first_token"] == "5ms"
    assert None not in arguments.app.options.values()
    assert _cluster(request)["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] == "ray-sim:1"


@pytest.mark.parametrize("spec", [VLLM, SIM], ids=["vllm", "sim"])
def test_every_pod_passes_pod_security_restricted(spec: dict[str, Any]) -> None:
    cluster = _cluster(_request(spec))
    for template in (cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["terminationGracePeriodSeconds"] == 150
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["lifecycle"]["preStop"]["exec"]["command"][-1] == "120"
            assert {"/tmp", "/dev/shm"} & {mount["mountPath"] for mount in container["volumeMounts"]}


def test_ray_asks_for_the_platforms_token_and_the_door_has_it() -> None:
    cluster = _cluster(_request(SIM))
    assert cluster["authOptions"] == {"mode": "token", "secretName": "qd-ray-token"}
    (door,) = (each for each in cluster["headGroupSpec"]["template"]["spec"]["containers"] if each["name"] == "door")
    (token,) = (each for each in door["env"] if each["name"] == "RAY_AUTH_TOKEN")
    assert token["valueFrom"]["secretKeyRef"] == {"name": "qd-ray-token", "key": "auth_token"}


def test_the_door_is_found_by_its_services_labels() -> None:
    service = _objects(_request(SIM))["Service/model-chat"]
    assert service["metadata"]["labels"]["quarterdeck.dev/role"] == "door"
    assert service["spec"]["selector"]["ray.io/node-type"] == "head"
    template = _cluster(_request(SIM))["headGroupSpec"]["template"]
    selector = {name: value for name, value in service["spec"]["selector"].items() if not name.startswith("ray.io")}
    assert selector.items() <= template["metadata"]["labels"].items()


def test_replicas_ports_are_those_that_the_hooks_look_at() -> None:
    """Ray's defaults, which no variable here changes."""
    env = {
        each["name"]: each.get("value")
        for each in _cluster(_request(SIM))["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert env["RAY_SERVE_ENABLE_DIRECT_INGRESS"] == "1"
    assert "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT" not in env
    assert (REPLICA_PORTS.start, REPLICA_PORTS.stop) == (30000, 31001)


def test_without_replicas_there_is_no_ray_cluster() -> None:
    assert list(_objects(_request(SIM, 0))) == ["Service/model-chat", "Service/model-chat-replicas"]


def test_kuberay_does_not_look_at_the_heads_proxy_which_network_policies_drop() -> None:
    """It waits for an answer in each reconcile of each RayService, and has one reconcile at a time."""
    assert _service(_request(SIM))["spec"]["excludeHeadPodFromServeSvc"] is True


def test_workers_have_a_service_from_the_moment_they_have_an_address() -> None:
    service = _objects(_request(SIM, 1))["Service/model-chat-replicas"]
    assert service["metadata"]["labels"]["quarterdeck.dev/role"] == "replica"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"]["ray.io/node-type"] == "worker"


def test_evictions_take_one_worker_at_a_time_and_never_the_head_of_several() -> None:
    one, three = _objects(_request(SIM, 1)), _objects(_request(SIM, 3))
    assert one["PodDisruptionBudget/model-chat"]["spec"]["minAvailable"] == 0
    assert "PodDisruptionBudget/model-chat-head" not in one
    assert three["PodDisruptionBudget/model-chat"]["spec"]["minAvailable"] == 2
    assert three["PodDisruptionBudget/model-chat-head"]["spec"]["minAvailable"] == 1


def test_names_stay_within_kuberays_limit() -> None:
    model = _request(SIM, name="a" * 40).model
    assert rayservice.object_name(model) == f"model-{'a' * 40}"
    canary = rayservice.object_name(model, "canary")
    assert len(canary) <= 47
    assert canary != rayservice.object_name(_request(SIM, name="a" * 39 + "b").model, "canary")


def test_scaling_is_an_edit_in_place() -> None:
    assert _change(VLLM, VLLM, (1, 3)) == Change("InPlace", 0)
    assert rayservice.revision_of(_service(_request(VLLM, 1))) == rayservice.revision_of(_service(_request(VLLM, 3)))


def test_limits_of_requests_and_drain_change_in_place_of_a_simulated_engine() -> None:
    assert _change(SIM, {**SIM, "scaling": {"target": 3}}).edit == "InPlace"


@pytest.mark.parametrize(
    ("after", "strategy", "change"),
    [
        ({"engine": {"args": {"max_num_seqs": 8}}}, "Surge", Change("NewCluster", 4)),
        ({"engine": {"args": {"max_num_seqs": 8}}}, "Recreate", Change("EngineRestart", 0)),
        ({"engine": {"image": "other:2"}}, "Surge", Change("NewCluster", 4)),
        ({"engine": {"image": "other:2"}}, "Recreate", Change("NewCluster", 0)),
    ],
)
def test_an_edit_of_the_engine_costs_its_gpus_twice_only_when_it_surges(
    after: dict[str, Any], strategy: str, change: Change
) -> None:
    rollout = {"rollout": {"strategy": strategy}}
    assert _change({**VLLM, **rollout}, {**VLLM, **rollout, **after}, (2, 2)) == change


def test_recreate_ends_the_old_pods_before_the_new_ones_start() -> None:
    before = _request({**SIM, "rollout": {"strategy": "Recreate"}})
    after = _request({**SIM, "rollout": {"strategy": "Recreate"}, "engine": {"type": "sim", "image": "x:2"}})
    observed, desired = rayservice.render(before), rayservice.render(after)
    old = {"metadata": {"labels": {"quarterdeck.dev/revision": rayservice.revision_of(_service(before))}}}
    assert "RayService" not in {each["kind"] for each in rayservice.staged(after, desired, observed, [old])}
    assert "RayService" not in {each["kind"] for each in rayservice.staged(after, desired, [], [old])}
    assert "RayService" in {each["kind"] for each in rayservice.staged(after, desired, [], [])}
    assert "RayService" in {each["kind"] for each in rayservice.staged(before, observed, observed, [old])}


def test_surge_never_waits() -> None:
    before, after = _request(SIM), _request({**SIM, "engine": {"type": "sim", "image": "x:2"}})
    desired = rayservice.render(after)
    assert rayservice.staged(after, desired, rayservice.render(before), []) == desired


def _ray_cluster(replicas: int) -> dict[str, Any]:
    return {
        "kind": "RayCluster",
        "metadata": {"name": "model-chat-x1", "resourceVersion": "7", "ownerReferences": [{"name": "model-chat"}]},
        "spec": {"workerGroupSpecs": [{"groupName": "replicas", "replicas": replicas, "template": {"kept": True}}]},
    }


def _worker(name: str, address: str, *, ready: bool = True, revision: str = "") -> dict[str, Any]:
    labels = {"ray.io/node-type": "worker", "ray.io/cluster": "model-chat-x1", "quarterdeck.dev/revision": revision}
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "status": {"podIP": address, "conditions": conditions},
    }


def test_the_running_cluster_gets_more_workers_at_once() -> None:
    (patch,) = rayservice.scaling_patches(_request(SIM, 3), [_ray_cluster(1)], [], None)
    (group,) = patch.change["spec"]["workerGroupSpecs"]
    assert (group["replicas"], group["template"], group["scaleStrategy"]) == (
        3,
        {"kept": True},
        {"workersToDelete": []},
    )
    assert patch.change["metadata"]["resourceVersion"] == "7"


@pytest.mark.parametrize(
    ("in_use", "replicas", "deleted"),
    [
        (None, None, None),
        (frozenset({"10.0.0.1", "10.0.0.2"}), None, None),
        (frozenset({"10.0.0.2"}), 1, ["a"]),
        (frozenset(), 1, ["a"]),
    ],
    ids=["door away", "both serve", "one idle", "never fewer than asked for"],
)
def test_a_worker_ends_only_when_serve_has_left_it(
    in_use: frozenset[str] | None, replicas: int | None, deleted: list[str] | None
) -> None:
    pods = [_worker("a", "10.0.0.1"), _worker("b", "10.0.0.2")]
    request = _request(SIM, 1)
    assert rayservice.surplus(request, [_ray_cluster(2)]) == 1
    patches = rayservice.scaling_patches(request, [_ray_cluster(2)], pods, in_use)
    groups = [patch.change["spec"]["workerGroupSpecs"][0] for patch in patches]
    assert [group["replicas"] for group in groups] == ([] if replicas is None else [replicas])
    assert [group["scaleStrategy"]["workersToDelete"] for group in groups] == ([] if deleted is None else [deleted])


def test_a_replica_is_ready_when_its_worker_is_and_a_head_is_no_replica() -> None:
    request = _request(SIM, 2)
    live = _service(request)
    live["metadata"]["generation"] = 1
    live["status"] = {"observedGeneration": 1}
    revision = rayservice.revision_of(live)
    head = {"kind": "Pod", "metadata": {"name": "h", "labels": {"ray.io/node-type": "head"}}}
    pods = [head, _worker("a", "1", revision=revision), _worker("b", "2", ready=False, revision=revision)]
    state = rayservice.replicas(request, [live], pods)
    assert (state.desired, state.ready, state.updated, state.is_rolled_out) == (2, 1, 1, True)
    live["status"]["pendingServiceStatus"] = {"rayClusterName": "model-chat-x2"}
    assert not rayservice.replicas(request, [live], pods).is_rolled_out


def test_the_workers_of_a_canary_are_not_the_stable_engines() -> None:
    request = _request(SIM)
    live = _service(request)
    canary = _worker("c", "3", revision=rayservice.revision_of(live))
    canary["metadata"]["labels"]["quarterdeck.dev/track"] = "canary"
    assert rayservice.replicas(request, [live], [canary]).ready == 0


def test_a_patch_may_not_move_the_engine_from_its_place() -> None:
    patch = {"spec": {"containers": [{"name": "sidecar", "image": "x"}]}}
    first = _cluster(_request({**SIM, "podTemplatePatch": patch}))["workerGroupSpecs"][0]["template"]["spec"][
        "containers"
    ][0]
    assert first["name"] == "engine"
