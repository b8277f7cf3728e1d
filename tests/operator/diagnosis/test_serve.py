"""What Ray Serve says in a RayService's status. The texts are KubeRay 1.6's and Ray 2.60's own."""

from typing import Any

import pytest

from quarterdeck.kube.conditions import Reason
from quarterdeck.operator.diagnosis.diagnose import diagnose
from quarterdeck.operator.diagnosis.evidence import Evidence

FAILED = (
    "The deployment failed to start 2 times in a row. This may be due to a problem with its constructor or initial "
    "health check failing. See controller logs for details. Error:\n"
    "\x1b[36mray::ServeReplica:engine:engine.initialize_and_get_metadata()\x1b[39m (pid=160, ip=10.244.0.64)\n"
    '  File "/usr/lib/python3.11/concurrent/futures/_base.py", line 456, in result\n'
    "    return self.__get_result()\n"
    "RuntimeError: Traceback (most recent call last):\n"
    '  File "/opt/quarterdeck/src/quarterdeck/simulator/app.py", line 62, in create_app_from_options\n'
    "    return create_app(from_mapping(known))\n"
    "{}"
)


def _service(member: str, status: str, message: str) -> dict[str, Any]:
    app = {"status": "DEPLOYING", "message": "", "serveDeploymentStatuses": {"engine": {}}}
    app["serveDeploymentStatuses"] = {"engine": {"status": status, "message": message}}
    status_of = {member: {"applicationStatuses": {"engine": app}}}
    return {"kind": "RayService", "metadata": {"name": "model-chat", "uid": "r"}, "status": status_of}


def test_the_engines_own_error_is_quoted() -> None:
    service = _service("pendingServiceStatus", "DEPLOY_FAILED", FAILED.format("ValueError: unknown option 'x'"))
    finding = diagnose(Evidence([], children=[service]))
    assert finding is not None
    assert (finding.reason, finding.is_progress) == (Reason.CRASH_LOOP, False)
    assert finding.message == "Ray Serve could not start the engine: ValueError: unknown option 'x'."


@pytest.mark.parametrize("member", ["pendingServiceStatus", "activeServiceStatus"])
def test_a_known_error_has_its_own_reason(member: str) -> None:
    text = FAILED.format("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
    finding = diagnose(Evidence([], children=[_service(member, "UNHEALTHY", text)]))
    assert finding is not None
    assert finding.reason == Reason.ACCELERATOR_OUT_OF_MEMORY


def test_an_engine_that_starts_or_serves_is_no_finding() -> None:
    assert diagnose(Evidence([], children=[_service("pendingServiceStatus", "UPDATING", "")])) is None
    assert diagnose(Evidence([], children=[_service("activeServiceStatus", "HEALTHY", "")])) is None


def test_a_failure_without_words_says_so() -> None:
    finding = diagnose(Evidence([], children=[_service("activeServiceStatus", "DEPLOY_FAILED", "")]))
    assert finding is not None
    assert "does not say why" in finding.message
