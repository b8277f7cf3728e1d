"""What each reason of a condition means and what to do about it.

`docs/operations/kubernetes-conditions.md` is generated from this table. Its order is that of precedence: of several
findings about a Model the first one is reported, since it is the nearest to the engine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from quarterdeck.kube.conditions import ConditionType, Reason


@dataclass(frozen=True, slots=True)
class Explanation:
    """`condition` is the one that has the reason where it is not True. Texts are whole sentences."""

    condition: ConditionType
    meaning: str
    remedy: str = ""
    is_progress: bool = False
    """Nothing is wrong: the object is on its way, or at rest because its spec says so."""


def _error(condition: ConditionType, meaning: str, remedy: str) -> Explanation:
    return Explanation(condition, meaning, remedy)


def _progress(condition: ConditionType, meaning: str, remedy: str = "") -> Explanation:
    return Explanation(condition, meaning, remedy, is_progress=True)


def _true(condition: ConditionType, meaning: str) -> Explanation:
    return Explanation(condition, meaning, is_progress=True)


_C = ConditionType

EXPLANATIONS: Mapping[Reason, Explanation] = MappingProxyType(
    {
        # ---- the spec ----
        Reason.INVALID_SPEC: _error(
            _C.ACCEPTED,
            "The object can't be read as its kind. The API server refuses most such objects when they are written; "
            "this "
            "one was written under an older schema, or breaks a rule that the schema can't state.",
            "The message names the field. Correct it; until then the last valid state keeps running.",
        ),
        Reason.NAME_CONFLICT: _error(
            _C.ACCEPTED,
            "Another object, or the chart's `config`, has the same public name or alias. The oldest object keeps it; "
            "the "
            "message names it.",
            "Choose another `spec.servedName` or alias, or delete the other object: this one then takes the name.",
        ),
        Reason.CONFIGURATION_INVALID: _error(
            _C.ACCEPTED,
            "The chart's `config` values are invalid, so nothing can be compiled for gateways. They keep the last "
            "valid "
            "configuration.",
            "Correct the values and run `helm upgrade`.",
        ),
        Reason.INVALID_POD_TEMPLATE_PATCH: _error(
            _C.ACCEPTED,
            "`spec.podTemplatePatch` can't be merged into the pod template, or the API server refuses the result.",
            "Correct the patch. `kubectl explain pod.spec` lists what a pod may have.",
        ),
        Reason.UNKNOWN_ACCELERATOR: _error(
            _C.ACCEPTED,
            "The operator's configuration has no accelerator profile of this name.",
            "Use a profile of the chart's `engines.accelerators`, or add one.",
        ),
        Reason.MODEL_NOT_FOUND: _error(
            _C.RESOLVED_REFS, "The Model that the object names does not exist.", "Create it, or correct the reference."
        ),
        Reason.BACKEND_UNAVAILABLE: _error(
            _C.PLANNED,
            "`spec.backend` is RayService, and the cluster has no KubeRay. The operator looks again each minute.",
            "Install the KubeRay operator, or set `spec.backend` to Deployment or auto.",
        ),
        # ---- the engine's own errors ----
        Reason.ADAPTER_RANK_TOO_LARGE: _error(
            _C.ENGINE_READY,
            "The rank of a LoRA adapter is above `spec.adapters.maxRank` of its Model.",
            "Raise `maxRank` (the engine restarts), or train the adapter with a smaller rank.",
        ),
        Reason.ACCELERATOR_OUT_OF_MEMORY: _error(
            _C.ENGINE_READY,
            "The model, or the KV cache of one request of the maximum length, does not fit into the accelerator's "
            "memory.",
            "Lower `spec.context` or `engine.args.max_num_seqs`, quantize (`spec.quantization`), or use more or larger "
            "accelerators (`spec.resources`).",
        ),
        Reason.OUT_OF_MEMORY: _error(
            _C.ENGINE_READY,
            "The kernel killed a container because it used more memory than its limit (OOMKilled).",
            "Raise `spec.resources.memory`, or use a smaller or quantized model.",
        ),
        Reason.DISK_FULL: _error(
            _C.WEIGHTS_READY,
            "There is no space left where the weights are downloaded to, or the node evicted the pod for its disk use.",
            "Enlarge `spec.source.cache`, or delete models from it that are not needed; without a cache, use one.",
        ),
        Reason.HUB_UNAUTHORIZED: _error(
            _C.WEIGHTS_READY,
            "The hub answered 401 or 403: the repository is gated or private, and the token is missing or has no "
            "access.",
            "Name a Secret with a token in `spec.source.secretRef`, and accept the model's licence on its page.",
        ),
        Reason.SOURCE_NOT_FOUND: _error(
            _C.WEIGHTS_READY,
            "The repository, revision, claim or folder does not exist. The hub answers the same for private "
            "repositories.",
            "Correct `spec.source.uri` or `spec.source.revision`; for a private repository set "
            "`spec.source.secretRef`.",
        ),
        Reason.HUB_UNREACHABLE: _error(
            _C.WEIGHTS_READY,
            "The hub can't be reached or answers with errors: DNS, egress, a proxy, a rate limit.",
            "Check the cluster's egress and DNS; set HTTPS_PROXY or HF_ENDPOINT in `spec.engine.env`; or keep the "
            "weights "
            "in a volume (`pvc://claim/path`).",
        ),
        Reason.INVALID_SOURCE: _error(
            _C.WEIGHTS_READY,
            "The engine can't read the model: files are damaged, or this version of it does not support the "
            "architecture.",
            "Use another version of the engine (`spec.engine.version`), or upload the files again.",
        ),
        Reason.INVALID_ENGINE_ARGUMENT: _error(
            _C.ENGINE_READY,
            "The engine refuses one of its arguments. The message is the engine's own.",
            "Correct `spec.engine.args`, or the field from which the argument comes (`context`, `quantization`, "
            "`resources`, `toolParser`).",
        ),
        Reason.NO_DEVICE: _error(
            _C.ENGINE_READY,
            "The engine finds no accelerator in its container, or the driver of the node is too old for it.",
            "Check the accelerator profile (its `resource` and `runtimeClass`), the device plugin and the driver.",
        ),
        Reason.STARTUP_TIMEOUT: _error(
            _C.ENGINE_READY,
            "The engine was not ready within the time that its startup probe allows, and was restarted.",
            "Look at its log. If it only needs longer, raise `failureThreshold` of the startup probe by "
            "`spec.podTemplatePatch`, or keep the weights in a volume.",
        ),
        Reason.PROBE_FAILING: _error(
            _C.ENGINE_READY,
            "The engine runs, but does not answer its readiness or liveness probe.",
            "Look at its log: it hangs, has too little CPU, or listens elsewhere.",
        ),
        Reason.CRASH_LOOP: _error(
            _C.ENGINE_READY,
            "The engine ends again and again for a reason that is not known. The message has the last line of its log.",
            "`kubectl logs --previous` shows the whole log.",
        ),
        Reason.ENGINE_FAILED: _error(
            _C.ENGINE_READY,
            "The engine reports an error that has no reason of its own.",
            "The message is the engine's own.",
        ),
        # ---- images and containers ----
        Reason.IMAGE_UNAUTHORIZED: _error(
            _C.ENGINE_READY,
            "The registry does not give the image without credentials, or not with those that the pod has.",
            "Add a pull secret: `imagePullSecrets` of the chart's values.",
        ),
        Reason.IMAGE_NOT_FOUND: _error(
            _C.ENGINE_READY,
            "The image does not exist in its registry, or its reference is invalid.",
            "Correct `spec.engine.image` or `spec.engine.version`, or push the image.",
        ),
        Reason.IMAGE_PULL_FAILED: _error(
            _C.ENGINE_READY,
            "The image can't be pulled: the registry can't be reached or limits pulls, or the node's disk is full.",
            "Check the nodes' network, proxies and disks. The kubelet tries again by itself.",
        ),
        Reason.SECRET_NOT_FOUND: _error(
            _C.WEIGHTS_READY,
            "A Secret that the spec names, or its key, does not exist in the object's namespace.",
            "Create it, or correct the `secretRef`. The kubelet tries again by itself.",
        ),
        Reason.CONTAINER_CONFIG_INVALID: _error(
            _C.ENGINE_READY,
            "A container can't be created: its command does not exist in the image, or a ConfigMap is missing.",
            "Correct `spec.engine.image` or `spec.podTemplatePatch`.",
        ),
        # ---- volumes and nodes ----
        Reason.VOLUME_PENDING: _error(
            _C.WEIGHTS_READY,
            "A PersistentVolumeClaim is not bound, or its volume can't be attached or mounted. The message names the "
            "claim.",
            "Set `spec.source.cache.storageClass` to a storage class of the cluster, or check its provisioner.",
        ),
        Reason.NODE_LOST: _error(
            _C.SCHEDULED,
            "The node of a pod is not ready, or was shut down.",
            "Its pods are replaced after five minutes. Look at the node.",
        ),
        Reason.EVICTED: _error(
            _C.SCHEDULED,
            "The node evicted a pod because it ran short of memory or another resource.",
            "The pod is replaced. Set `spec.resources.memory` to what the engine uses.",
        ),
        Reason.NO_SUCH_ACCELERATOR: _error(
            _C.SCHEDULED,
            "No node of the cluster has the accelerator, or none has so many of it.",
            "Choose another profile or number (`spec.resources`), add such a node, or check its device plugin.",
        ),
        Reason.ACCELERATORS_BUSY: _error(
            _C.SCHEDULED,
            "The cluster has the accelerators, and all of them are in use.",
            "The pod starts when some become free. Scale other models down, or add nodes.",
        ),
        Reason.UNSCHEDULABLE: _error(
            _C.SCHEDULED,
            "No node can run the pod: CPU, memory, taints or affinities. The message has the scheduler's words.",
            "Request less (`spec.resources`), add tolerations to the accelerator profile, or add nodes.",
        ),
        Reason.QUOTA_EXCEEDED: _error(
            _C.SCHEDULED,
            "A ResourceQuota of the namespace does not allow the pod. The message names the quota and the figures.",
            "Raise the quota, scale other models down, or request less.",
        ),
        Reason.POD_FORBIDDEN: _error(
            _C.SCHEDULED,
            "Pod Security, a LimitRange or another admission policy refuses the pod. The message has its words.",
            "Change the pod (`spec.podTemplatePatch`, `spec.resources`) or the policy.",
        ),
        # ---- adapters ----
        Reason.ADAPTERS_DISABLED: _error(
            _C.LOADED,
            "`spec.adapters.max` of the Model is 0: its engine runs without LoRA.",
            "Set `spec.adapters.max` of the Model. The engine restarts.",
        ),
        Reason.TOO_MANY_ADAPTERS: _error(
            _C.LOADED,
            "The Model has more ModelAdapters than `spec.adapters.max`. The oldest are loaded.",
            "Raise `spec.adapters.max` of the Model, or delete adapters.",
        ),
        Reason.ADAPTER_NOT_FOUND: _error(
            _C.LOADED,
            "There is no adapter at `spec.source.uri`, as the engine sees it.",
            "Correct the uri. A path is one in the engine's container.",
        ),
        Reason.ADAPTER_MISMATCH: _error(
            _C.LOADED,
            "The engine refuses the adapter: it was made for another base model, or its files are damaged.",
            "Use an adapter that was trained on the Model's base model.",
        ),
        Reason.ADAPTER_LOAD_FAILED: _error(
            _C.LOADED,
            "The engine could not load the adapter. The message is the engine's own; the operator tries again.",
            "Look at the message, per replica in the status.",
        ),
        Reason.ADAPTER_PROBE_FAILED: _error(
            _C.LOADED,
            "The engine loaded the adapter, and a request of one token to it failed.",
            "Look at the engine's log. The replica does not serve the adapter until the probe succeeds.",
        ),
        # ---- rollout and routing ----
        Reason.CANARY_ABORTED: _error(
            _C.ROUTABLE,
            "The new revision failed more often or answered more slowly than the abort rules allow, or never became "
            "ready. "
            "All requests go to the old revision again. The message has the figures.",
            "Change the spec again: another change starts another canary; undoing the change ends this state.",
        ),
        Reason.NO_READY_REPLICA: _error(
            _C.ROUTABLE, "No replica answers requests.", "The condition before this one says why."
        ),
        Reason.NO_READY_TARGET: _error(
            _C.ROUTABLE, "None of the route's targets can serve requests.", "Look at the Models that it names."
        ),
        Reason.CONFIGURATION_NOT_WRITTEN: _error(
            _C.ROUTABLE,
            "The operator could not write the gateways' configuration.",
            "Look at the operator's log: rights, quota or size of the ConfigMap. It tries again.",
        ),
        Reason.GATEWAY_UNREACHABLE: _error(
            _C.SYNCED,
            "No gateway answers the operator, so the object can't be stored.",
            "Look at the gateway's pods and at NetworkPolicies. The operator tries again.",
        ),
        Reason.SYNC_FAILED: _error(
            _C.SYNCED, "The gateway refused the object. The message is its answer.", "Correct what the message names."
        ),
        # ---- in progress ----
        Reason.PENDING: _progress(_C.READY, "The step has not begun: one before it is not done."),
        Reason.DOWNLOADING: _progress(
            _C.WEIGHTS_READY, "The weights are being downloaded.", "A cache (`spec.source.cache`) keeps them."
        ),
        Reason.SCHEDULING: _progress(_C.SCHEDULED, "The pod waits for the scheduler, or for a queue of the cluster."),
        Reason.STARTING: _progress(
            _C.ENGINE_READY, "The image is pulled, containers are created, or the engine loads the model."
        ),
        Reason.LOADING: _progress(_C.LOADED, "The adapter is being loaded into replicas, or probed."),
        Reason.ROLLING_OUT: _progress(_C.READY, "Replicas of a new revision replace the old ones."),
        Reason.CANARY_RUNNING: _progress(
            _C.ROUTABLE, "A new revision gets a part of the requests and is judged by them. The message has the step."
        ),
        Reason.DRAINING: _progress(_C.ENGINE_READY, "Replicas finish their requests and then end."),
        Reason.SUSPENDED: _progress(
            _C.ENGINE_READY, "`spec.suspend` is set: no engine runs, and requests get 503.", "Unset `spec.suspend`."
        ),
        Reason.DELETING: _progress(_C.READY, "The object is being deleted."),
        # ---- True ----
        Reason.SCALED_TO_ZERO: _true(
            _C.ENGINE_READY, "No replica runs because no request came; the next one starts one."
        ),
        Reason.EXTERNAL: _true(_C.ENGINE_READY, "External endpoints serve the model; there is no engine to run."),
        Reason.ACCEPTED: _true(_C.ACCEPTED, "The spec is valid, and its names are the object's own."),
        Reason.RESOLVED: _true(_C.RESOLVED_REFS, "What the object names exists."),
        Reason.PLANNED: _true(_C.PLANNED, "The operator knows what to create."),
        Reason.WEIGHTS_READY: _true(_C.WEIGHTS_READY, "The weights are where the engine reads them."),
        Reason.SCHEDULED: _true(_C.SCHEDULED, "The engine's pods have nodes."),
        Reason.ENGINE_READY: _true(_C.ENGINE_READY, "At least one replica answers requests."),
        Reason.LOADED: _true(_C.LOADED, "The adapter is loaded on every replica that counts and answered a probe."),
        Reason.SYNCED: _true(_C.SYNCED, "The object is stored in the database."),
        Reason.ROUTABLE: _true(_C.ROUTABLE, "Gateways have the object's names."),
        Reason.READY: _true(_C.READY, "The object does what its spec says."),
    }
)
