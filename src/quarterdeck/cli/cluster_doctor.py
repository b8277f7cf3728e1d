"""`quarterdeck doctor --cluster`: checks a cluster and the release in it. Pure decisions; `check` fetches the objects.

What kubectl's user may not read is a note, never an error: the other checks go on.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from quarterdeck.cli import cluster_status, installation, readiness
from quarterdeck.cli.cluster_status import ModelState, Part
from quarterdeck.cli.findings import Finding
from quarterdeck.cli.health import HealthResponse
from quarterdeck.cli.installation import COMPONENT, Installation
from quarterdeck.cli.kubectl import Kubectl, KubectlError
from quarterdeck.kube.names import GROUP, VERSION

OLDEST = (1, 29)
"""CEL rules in custom resource definitions are stable since then; the chart's `kubeVersion` is the same."""
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
ENFORCE = "pod-security.kubernetes.io/enforce"
GPU = re.compile(r"(nvidia\.com/(gpu|mig-.+)|amd\.com/gpu|gpu\.intel\.com/.+|habana\.ai/gaudi|google\.com/tpu)")
PRODUCT_LABELS = ("nvidia.com/gpu.product", "amd.com/gpu.product-name", "cloud.google.com/gke-accelerator")
APPLY = "kubectl apply --server-side -f k8s/crds"

Objects = list[dict[str, Any]]


def server_version(info: Mapping[str, Any]) -> Finding:
    """Compare the API server's version with the oldest that is supported."""
    server = info.get("serverVersion") or {}
    text = f"Kubernetes {server.get('gitVersion', 'of an unknown version')}"
    numbers = [re.match(r"\d+", str(server.get(part, ""))) for part in ("major", "minor")]
    if not all(numbers):
        return Finding("note", text, "could not be compared with 1.29, the oldest that is supported")
    version = tuple(int(number[0]) for number in numbers if number)
    return Finding("ok" if version >= OLDEST else "missing", text, "1.29 or newer is required")


def definitions(found: Objects, ours: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Compare the cluster's custom resource definitions (by name) with those of this version: missing ones, and fields
    that only one side knows."""
    by_name = {one["metadata"]["name"]: one for one in found}
    absent = sorted(name for name in ours if name not in by_name)
    if absent:
        text = f"custom resource definitions: no {', '.join(absent)}"
        return [Finding("missing", text, f"install the chart, or {APPLY}")]
    findings = []
    for name, definition in sorted(ours.items()):
        theirs, wanted = fields_of(by_name[name]), fields_of(definition)
        if theirs is None:
            findings.append(Finding("missing", f"{name} does not serve {VERSION}", APPLY))
        elif lacking := sorted((wanted or set()) - theirs):
            text = f"{name} is older than this command: it lacks {_some(lacking)}"
            findings.append(Finding("missing", text, f"upgrade the chart, or {APPLY}"))
        elif extra := sorted(theirs - (wanted or set())):
            text = f"{name} is newer than this command: it has {_some(extra)}"
            findings.append(Finding("note", text, "use the command of the release's version"))
    return findings or [Finding("ok", f"custom resource definitions: {len(ours)}, of this version")]


def fields_of(definition: Mapping[str, Any]) -> set[str] | None:
    """Paths of the fields of the served version, such as `spec.source.uri`. None: the version is not served."""
    for version in definition["spec"]["versions"]:
        if version["name"] == VERSION and version.get("served"):
            return set(_paths(version["schema"]["openAPIV3Schema"], ""))
    return None


def _paths(schema: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, inner in (schema.get("properties") or {}).items():
        yield f"{prefix}{name}"
        yield from _paths(inner, f"{prefix}{name}.")
    for nested in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(nested, Mapping):
            yield from _paths(nested, prefix)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def kuberay(definition_names: set[str], api_versions: set[str]) -> Finding:
    """Whether KubeRay's definitions are there in the version that we write."""
    if "rayservices.ray.io" not in definition_names:
        return Finding(
            "note", "KubeRay: not installed", "Models run in Deployments; one on several nodes needs KubeRay"
        )
    if "ray.io/v1" not in api_versions:
        return Finding("missing", "KubeRay: it does not serve ray.io/v1", "install KubeRay 1.1 or newer")
    return Finding("ok", "KubeRay: ray.io/v1 is served")


def accelerators(nodes: Objects) -> list[Finding]:
    """GPUs that pods can ask for, by product."""
    counts: dict[tuple[str, str], list[int]] = {}
    for node in nodes:
        labels = node["metadata"].get("labels", {})
        product = next((labels[name] for name in PRODUCT_LABELS if name in labels), "of an unknown product")
        for resource, amount in node.get("status", {}).get("allocatable", {}).items():
            if GPU.fullmatch(resource) and str(amount).isdecimal() and int(amount):
                counts.setdefault((resource, product), []).append(int(amount))
    if not counts:
        text = f"GPUs: none on {_count(len(nodes), 'node')}"
        return [Finding("note", text, "engines need a device plugin's GPUs, or run on processors (slow)")]
    return [
        Finding("ok", f"GPUs: {sum(each)} × {resource} {product} on {_count(len(each), 'node')}")
        for (resource, product), each in sorted(counts.items())
    ]


def storage(classes: Objects) -> Finding:
    """Whether a claim without a class gets a volume."""
    defaults = [
        one["metadata"]["name"]
        for one in classes
        if one["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true"
    ]
    if not defaults:
        how = "set redis.persistence.storageClass and database.sqlite.storageClass, or make one the default"
        return Finding("missing", f"storage: no default class among {_count(len(classes), 'class', 'classes')}", how)
    if len(defaults) > 1:
        return Finding(
            "note", f"storage: several default classes ({', '.join(sorted(defaults))})", "the newest is used"
        )
    return Finding("ok", f"storage: default class {defaults[0]}")


def pod_security(namespace: Mapping[str, Any]) -> Finding:
    """What Pod Security admission enforces in the namespace. Every pod of ours passes the strictest level."""
    name = namespace["metadata"]["name"]
    level = namespace["metadata"].get("labels", {}).get(ENFORCE)
    if level is None:
        how = f"kubectl label namespace {name} {ENFORCE}=restricted"
        return Finding("note", f"Pod Security: namespace {name} has no level of its own", how)
    return Finding("ok", f"Pod Security: namespace {name} enforces {level}")


def network_policies(policies: Objects) -> Finding:
    """Policies that are there. Whether anything enforces them can't be asked."""
    if not policies:
        return Finding("note", "NetworkPolicies: none", "any pod of the cluster reaches engines and Redis")
    text = f"NetworkPolicies: {len(policies)}; whether they are enforced is unknown"
    return Finding("note", text, "it depends on the network plugin; `helm test` of the chart tries it")


def parts(found: list[Part]) -> list[Finding]:
    """The release's parts: Redis is elsewhere, and the operator off, if they are not there."""
    names = {part.name for part in found}
    findings = []
    for part in found:
        text = f"{part.name}: {part.state}" + (f" ({part.detail})" if part.detail and not part.is_ready else "")
        how = f"kubectl describe pods --selector {COMPONENT}={part.name}"
        findings.append(Finding("ok" if part.is_ready else "missing", text, how))
    absent = [name for name in ("gateway", "worker") if name not in names]
    findings += [Finding("missing", f"{name}: not in the release", "install the chart") for name in absent]
    if "operator" not in names:
        findings.append(Finding("note", "operator: not in the release", "Models are not followed (operator.enabled)"))
    return findings


def gateway(response: HealthResponse) -> list[Finding]:
    """The gateway's own words: Redis, database and configuration."""
    state = readiness.gateway_state(response)
    problems = {
        name: text for name, text in readiness.gateway_problems(response).items() if not name.startswith("model ")
    }
    if not problems:
        return [Finding("ok" if response.status == 200 else "missing", f"gateway says: {state}", "its log says why")]
    return [Finding("missing", f"gateway says: {name}: {text}", "its log says why") for name, text in problems.items()]


def models(states: list[ModelState]) -> list[Finding]:
    """Models that are not ready and why."""
    if not states:
        return [Finding("note", "Models: none", "kubectl apply -f k8s/samples/model.yaml")]
    trouble = [one for one in states if one.is_in_trouble]
    findings = [] if trouble else [Finding("ok", f"Models: {_count(len(states), 'Model')}, none in trouble")]
    return findings + [
        Finding("missing", f"Model {one.name}: {one.reason}: {one.message}", f"kubectl describe model {one.name}")
        for one in trouble
    ]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


# ---- fetching --------------------------------------------------------------------------------------------------------


def check(kubectl: Kubectl, release: str | None) -> Iterator[Finding]:
    """Check the cluster, then the release. Stops after the first finding where the API can't be reached."""
    try:
        info = kubectl.json("version")
        if "serverVersion" not in info:
            raise KubectlError("the API server did not answer")
    except KubectlError as error:
        yield Finding("missing", f"Kubernetes API: {error.message}", "check --context and KUBECONFIG")
        return
    yield server_version(info)
    yield from _definitions(kubectl)
    yield from _guarded("nodes", lambda: accelerators(kubectl.items("nodes")))
    yield from _guarded("storage classes", lambda: [storage(kubectl.items("storageclasses"))])
    try:
        found = installation.find(kubectl, release)
    except click.ClickException as error:
        yield Finding("missing", f"release: {error.message}", "helm install quarterdeck charts/quarterdeck")
        return
    yield Finding("ok", f"release {found.release} in namespace {found.namespace}")
    yield from _release(kubectl.within(found.namespace), found)


def _definitions(kubectl: Kubectl) -> Iterator[Finding]:
    from quarterdeck.kube.resources.registry import RESOURCES  # builds five schemas: not for other commands
    from quarterdeck.kube.schema import definition

    ours = {one["metadata"]["name"]: one for one in map(definition, RESOURCES)}
    found: Objects = []

    def compare() -> list[Finding]:
        found.extend(kubectl.items("customresourcedefinitions"))
        return definitions([one for one in found if one["spec"]["group"] == GROUP], ours)

    yield from _guarded("custom resource definitions", compare)
    if found:
        names = {one["metadata"]["name"] for one in found}
        served = {
            f"{one['spec']['group']}/{version['name']}"
            for one in found
            for version in one["spec"]["versions"]
            if version.get("served")
        }
        yield kuberay(names, served)


def _release(kubectl: Kubectl, found: Installation) -> Iterator[Finding]:
    yield from _guarded("namespace", lambda: [pod_security(kubectl.json("get", "namespace", found.namespace))])
    yield from _guarded("NetworkPolicies", lambda: [network_policies(kubectl.items("networkpolicies"))])
    yield from _guarded("gateway", lambda: gateway(_readyz(kubectl, found)))

    def look() -> list[Finding]:
        workloads, states = cluster_status.read(kubectl, found)
        return [*parts(workloads), *models(states)]

    yield from _guarded("release", look)


def _readyz(kubectl: Kubectl, found: Installation) -> HealthResponse:
    import asyncio

    from quarterdeck.cli import health

    with kubectl.forwarded(f"service/{found.service}", found.port) as url:
        return asyncio.run(health.get(f"{url}/readyz"))


def _guarded(what: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except KubectlError as error:
        return [Finding("note", f"{what}: could not be checked", error.message)]
