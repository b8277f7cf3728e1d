"""The images under Pod Security `restricted`: a read-only root, uid 65532 and any other."""

import json

import pytest
from tests.cluster.kubectl import Kubectl, Object

RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(name: str, image: str, uid: int | None = None, **container: object) -> Object:
    """A restricted pod with writable /tmp and state, as the chart's."""
    security = {**RESTRICTED, **({} if uid is None else {"runAsUser": uid, "runAsGroup": uid})}
    one = {
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        "securityContext": security,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "tmp", "mountPath": "/var/lib/quarterdeck"}],
        **container,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [one],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


def output(namespace: Kubectl, name: str) -> str:
    """What a pod wrote, once it has ended. Raises AssertionError if it failed."""

    def is_over(one: Object | None) -> bool:
        return one is not None and one.get("status", {}).get("phase") in ("Succeeded", "Failed")

    found = namespace.wait("pod", name, is_over, "ended")
    assert found is not None
    text = namespace.logs(name)
    assert found["status"]["phase"] == "Succeeded", text
    return text


LOOK = """
import importlib.metadata as metadata, importlib.util as util, json, os, pathlib, quarterdeck.gateway.app
print(json.dumps({
    "uid": os.getuid(), "version": metadata.version("quarterdeck"),
    "heavy": [name for name in ("torch", "ray", "vllm") if util.find_spec(name)],
    "compiled": pathlib.Path(quarterdeck.gateway.app.__cached__).exists(),
}))
"""


@pytest.mark.parametrize("image", ["gateway", "worker", "operator", "simulator"])
def test_a_platform_image_has_no_torch_or_ray_and_its_source_is_compiled(
    namespace: Kubectl, images: dict[str, str], image: str
) -> None:
    namespace.apply(pod(f"look-{image}", images[image], command=["python", "-c", LOOK]))
    found = json.loads(output(namespace, f"look-{image}"))
    assert found == {"uid": 65532, "version": "0.1.0", "heavy": [], "compiled": True}


@pytest.mark.parametrize("image", ["gateway", "worker", "operator"])
def test_every_module_of_a_door_can_be_imported_in_its_image(
    namespace: Kubectl, images: dict[str, str], image: str
) -> None:
    walk = (
        f"import importlib, pkgutil; import quarterdeck.{image} as door;"
        " found = [one.name for one in pkgutil.walk_packages(door.__path__, door.__name__ + '.')"
        " if not one.name.endswith('__main__')];"
        " [importlib.import_module(name) for name in found]; print(len(found))"
    )
    namespace.apply(pod(f"import-{image}", images[image], command=["python", "-c", walk]))
    assert int(output(namespace, f"import-{image}")) >= 0


def test_the_commands_work_for_any_uid(namespace: Kubectl, images: dict[str, str]) -> None:
    namespace.apply(pod("any", images["gateway"], uid=1000770000, command=["quarterdeck", "--help"]))
    assert "models" in output(namespace, "any")


def test_the_simulated_engine_answers_on_the_pods_address(namespace: Kubectl, images: dict[str, str]) -> None:
    probe = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1}
    arguments = ["--host", "0.0.0.0", "--port", "8000", "--model", "m"]
    namespace.apply(pod("engine", images["simulator"], uid=1234567, args=arguments, readinessProbe=probe))
    found = namespace.wait_condition("pod", "engine", "Ready")
    look = f"import urllib.request as u; print(u.urlopen('http://{found['status']['podIP']}:8000/v1/models').read().decode())"
    namespace.apply(pod("client", images["gateway"], command=["python", "-c", look]))
    assert [one["id"] for one in json.loads(output(namespace, "client"))["data"]] == ["m"]


def test_the_stand_ins_of_redis_and_postgres_serve_as_another_user(namespace: Kubectl, images: dict[str, str]) -> None:
    data = {"name": "tmp", "mountPath": "/data"}
    redis = pod("redis", images["redis"], uid=65532, args=["redis-server", "--appendonly", "yes"])
    redis["spec"]["containers"][0]["volumeMounts"].append(data)
    postgres = pod("postgres", images["postgres"], uid=65532, env=[{"name": "POSTGRES_PASSWORD", "value": "secret"}])
    postgres["spec"]["containers"][0]["volumeMounts"].append({**data, "mountPath": "/var/lib/postgresql/data"})
    for one, command in ((redis, ["redis-cli", "ping"]), (postgres, ["pg_isready", "-h", "127.0.0.1"])):
        probe = {"exec": {"command": command}, "periodSeconds": 1, "timeoutSeconds": 5}
        one["spec"]["containers"][0]["readinessProbe"] = probe
        namespace.apply(one)
    for name in ("redis", "postgres"):
        namespace.wait_condition("pod", name, "Ready")
