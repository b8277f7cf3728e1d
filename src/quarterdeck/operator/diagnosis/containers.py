"""Why a container does not serve: it waits, it has ended, or its probes fail."""

import re
from datetime import timedelta

from quarterdeck.kube.conditions import Reason
from quarterdeck.operator.diagnosis.engine_errors import explain as explain_engine_error
from quarterdeck.operator.diagnosis.evidence import Evidence, event_time, matching, parse_time
from quarterdeck.operator.diagnosis.finding import Finding, Object, sentence
from quarterdeck.operator.diagnosis.images import WAITING as IMAGE_REASONS
from quarterdeck.operator.diagnosis.images import explain_image
from quarterdeck.operator.diagnosis.volumes import explain_mounts, missing_object

OUTLIVED = timedelta(seconds=10)
"""A run that is so much longer than the one that failed has passed the point of the failure."""
UNREADY = timedelta(seconds=60)
"""A container without a startup probe that is not ready for so long fails its readiness probe."""
FAILURES = 3
"""Failed readiness probes of a started container after which its probe counts as failing."""

_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"})
_MISSING = re.compile(r'(secret|configmap) "([^"]+)" not found', re.IGNORECASE)
_MISSING_KEY = re.compile(r"couldn't find key (\S+) in (Secret|ConfigMap) (?:\S+/)?(\S+)")
_RUNC = re.compile(r"unable to start container process: (.*?)(?:: unknown)?$")
_SIGNALS = {134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}


def explain_container(status: Object, pod: Object, evidence: Evidence, *, is_init: bool) -> Finding | None:
    """Return None for a container that is ready or, of an init container, done."""
    state, last = status.get("state") or {}, (status.get("lastState") or {}).get("terminated")
    if waiting := state.get("waiting"):
        return _explain_waiting(status, waiting, last, pod, evidence)
    if ended := state.get("terminated"):
        if is_init and ended.get("exitCode") == 0:
            return None
        return _explain_end(status, ended, pod, evidence)
    if running := state.get("running"):
        if is_init:
            failed = last is not None and not _has_outlived(running, last, evidence)
            return _explain_end(status, last, pod, evidence) if failed and last else _downloading(pod)
        return _explain_running(status, running, last, pod, evidence)
    return None


def _explain_waiting(
    status: Object, waiting: Object, last: Object | None, pod: Object, evidence: Evidence
) -> Finding | None:
    reason, message = waiting.get("reason"), str(waiting.get("message") or "")
    if reason in IMAGE_REASONS:
        return explain_image(status, waiting, pod)
    if last is not None and (reason == "CrashLoopBackOff" or reason in _CONFIG_REASONS):
        return _explain_end(status, last, pod, evidence)
    if reason in _CONFIG_REASONS:
        return _explain_config(message, pod)
    if reason in ("ContainerCreating", "PodInitializing"):
        if failed := explain_mounts(pod, evidence):
            return failed
        pulling = matching(evidence.about(pod), "Pulling")
        pulled = matching(evidence.about(pod), "Pulled")
        if len(pulling) > len(pulled):
            return Finding(Reason.STARTING, f"The node pulls the image '{status.get('image')}'.", subject=pod)
        return Finding(Reason.STARTING, "The pod's containers are being created.", subject=pod)
    return Finding(Reason.STARTING, sentence(f"A container waits: {reason or 'no reason given'}"), subject=pod)


def _explain_config(message: str, pod: Object) -> Finding:
    if missing := _MISSING.search(message):
        return missing_object(missing[1], missing[2], pod)
    if key := _MISSING_KEY.search(message):
        reason = Reason.SECRET_NOT_FOUND if key[2] == "Secret" else Reason.CONTAINER_CONFIG_INVALID
        return Finding(
            reason,
            f"The {key[2]} '{key[3]}' has no key '{key[1]}'.",
            "Add the key, or correct the secretRef that names it.",
            pod,
        )
    found = _RUNC.search(message)
    return Finding(
        Reason.CONTAINER_CONFIG_INVALID,
        sentence(f"The container can't be created: {found[1] if found else message}"),
        "Correct the command, image or settings in spec.engine and spec.podTemplatePatch.",
        pod,
    )


def _explain_end(status: Object, ended: Object, pod: Object, evidence: Evidence) -> Finding:
    """A container has ended that should run."""
    text, code = str(ended.get("message") or ""), int(ended.get("exitCode") or 0)
    if ended.get("reason") == "OOMKilled":
        limit = _memory_limit(status, pod)
        return Finding(
            Reason.OUT_OF_MEMORY,
            f"The kernel killed the engine because it used more memory than {limit}.",
            "Raise spec.resources.memory, or use a smaller or quantized model.",
            pod,
        )
    if ended.get("reason") in ("StartError", "ContainerCannotRun") or "failed to create containerd task" in text:
        return _explain_config(text, pod)
    if _was_killed_by_probe("startup", status, ended, pod, evidence):
        return _startup_timeout(status, text, pod)
    if _was_killed_by_probe("liveness", status, ended, pod, evidence):
        return Finding(
            Reason.PROBE_FAILING,
            "The engine stopped answering its liveness probe and was restarted." + _last(text),
            "Look at the engine's log of that time; it hangs, or has too little CPU.",
            pod,
        )
    known = explain_engine_error(text)
    if known is not None and known.reason is not None:
        return Finding(known.reason, sentence(known.line), known.hint, pod)
    ending = f"with exit code {code}" if code not in _SIGNALS else f"by {_SIGNALS[code]} (exit code {code})"
    said = "and logged nothing" if known is None else f"after: {known.line}"
    return Finding(
        Reason.CRASH_LOOP,
        sentence(f"The engine ended {ending} {said}"),
        "kubectl logs --previous shows the whole log.",
        pod,
    )


def _explain_running(
    status: Object, running: Object, last: Object | None, pod: Object, evidence: Evidence
) -> Finding | None:
    if status.get("ready"):
        return None
    if last is not None and not _has_outlived(running, last, evidence):
        return _explain_end(status, last, pod, evidence)
    container = _spec_of(status, pod)
    started = str(running.get("startedAt") or "")
    events = [event for event in evidence.about(pod) if event_time(event)[:19] >= started[:19]]
    if container.get("startupProbe") and not status.get("started"):
        if matching(events, "Killing", "failed startup probe"):  # it may take its time to end
            return _startup_timeout(status, "", pod)
        return Finding(Reason.STARTING, "The engine loads the model.", subject=pod)
    failing = matching(events, "Unhealthy", "Readiness probe")
    if container.get("startupProbe"):
        # Between its start and its first successful probe it is neither.
        is_failing = sum(int(event.get("count") or 1) for event in failing) >= FAILURES
    else:
        began = parse_time(started)
        is_failing = evidence.now is not None and began is not None and evidence.now - began >= UNREADY
    if not is_failing:
        return Finding(Reason.STARTING, "The engine loads the model.", subject=pod)
    why = f" {sentence(str(failed_message(failing[-1])))}" if failing else ""
    return Finding(
        Reason.PROBE_FAILING,
        f"The engine runs, but it does not answer its readiness probe.{why}",
        "Look at the engine's log; its port or path may differ from the probe's.",
        pod,
    )


def failed_message(event: Object) -> str:
    """A probe's event without the address, which is another one in each pod."""
    text = re.sub(
        r'(?:Get "[^"]*": |dial tcp \S+: (?:connect: )?|HTTP probe failed with )', "", str(event.get("message"))
    )
    return " ".join(text.split())


def _startup_timeout(status: Object, text: str, pod: Object) -> Finding:
    budget = _startup_budget(_spec_of(status, pod))
    within = f" within {budget} s" if budget else ""
    return Finding(
        Reason.STARTUP_TIMEOUT,
        f"The engine did not become ready{within} and was restarted.{_last(text)}",
        "Look at the engine's log: if it only needs longer, raise failureThreshold of the startup probe by "
        "spec.podTemplatePatch; weights in a volume (spec.source.cache) load faster.",
        pod,
    )


def _was_killed_by_probe(probe: str, status: Object, ended: Object, pod: Object, evidence: Evidence) -> bool:
    kills = matching(evidence.about(pod), "Killing", f"failed {probe} probe")
    stopped = int(ended.get("exitCode") or 0) in (0, 137, 143)
    # The kubelet drops events of a pod that has many: an earlier kill counts if this run was stopped from outside too.
    if any(stopped or event_time(kill)[:19] >= str(ended.get("startedAt") or "")[:19] for kill in kills):
        return True
    if probe != "startup":
        return False
    # Events may be late, and are kept for an hour only: a run that lasted as long as
    # the probe allows was ended by it. The last probe comes up to a period before the budget ends.
    budget = _startup_budget(_spec_of(status, pod)) - _startup_period(_spec_of(status, pod))
    began, finished = parse_time(ended.get("startedAt")), parse_time(ended.get("finishedAt"))
    return bool(budget > 0 and began and finished and stopped and (finished - began).total_seconds() >= budget)


def _startup_budget(container: Object) -> int:
    """Seconds that the startup probe allows; 0 without one."""
    probe = container.get("startupProbe")
    if not probe:
        return 0
    times = int(probe.get("failureThreshold") or 3)
    return int(probe.get("initialDelaySeconds") or 0) + _startup_period(container) * times


def _startup_period(container: Object) -> int:
    return int((container.get("startupProbe") or {}).get("periodSeconds") or 10)


def _has_outlived(running: Object, last: Object, evidence: Evidence) -> bool:
    started = parse_time(running.get("startedAt"))
    began, finished = parse_time(last.get("startedAt")), parse_time(last.get("finishedAt"))
    if evidence.now is None or started is None or began is None or finished is None:
        return False
    return evidence.now - started > (finished - began) + OUTLIVED


def _downloading(pod: Object) -> Finding:
    return Finding(Reason.DOWNLOADING, "The weights are being downloaded.", subject=pod)


def _last(text: str) -> str:
    known = explain_engine_error(text)
    return "" if known is None else f" The last line of its log: {sentence(known.line)}"


def _memory_limit(status: Object, pod: Object) -> str:
    limits = (_spec_of(status, pod).get("resources") or {}).get("limits") or {}
    return f"its limit of {limits['memory']}" if limits.get("memory") else "the node has"


def _spec_of(status: Object, pod: Object) -> Object:
    spec = pod.get("spec") or {}
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        if container.get("name") == status.get("name"):
            found: Object = container
            return found
    return {}
