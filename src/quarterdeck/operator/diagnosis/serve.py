"""What Ray Serve says about an engine, as KubeRay copies it into a RayService's status."""

import re
from collections.abc import Iterable

from quarterdeck.kube.conditions import Reason
from quarterdeck.operator.diagnosis.engine_errors import explain
from quarterdeck.operator.diagnosis.evidence import Evidence
from quarterdeck.operator.diagnosis.finding import Finding, Object, sentence

_FAILED = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OUTER = re.compile(r"^(?:RuntimeError: Traceback|ray::|The deployment failed to start|\(\w+ pid=)")


def explain_serve(evidence: Evidence) -> Finding | None:
    """Return why Serve could not start the engine, or that it has failed since. The newest cluster goes first."""
    for service in evidence.of_kind("RayService"):
        status = service.get("status") or {}
        for member in ("pendingServiceStatus", "activeServiceStatus"):
            for text in _failures(status.get(member) or {}):
                return _finding(text, service)
    return None


def _failures(cluster: Object) -> Iterable[str]:
    for app in (cluster.get("applicationStatuses") or {}).values():
        deployments = list((app.get("serveDeploymentStatuses") or {}).values())
        if app.get("status") in _FAILED or any(each.get("status") in _FAILED for each in deployments):
            texts = [str(each.get("message") or "") for each in deployments]
            yield "\n".join(filter(None, texts)) or str(app.get("message") or "")


def _finding(text: str, service: Object) -> Finding:
    lines = (_COLOUR.sub("", line).strip() for line in text.splitlines())
    known = explain("\n".join(line for line in lines if not _OUTER.match(line)))
    if known is not None and known.reason is not None:
        return Finding(known.reason, sentence(known.line), known.hint, service)
    why = f": {known.line}" if known is not None else ", and does not say why"
    return Finding(
        Reason.CRASH_LOOP,
        sentence(f"Ray Serve could not start the engine{why}"),
        "The logs are in /tmp/ray/session_latest/logs of the worker's pod.",
        service,
    )
