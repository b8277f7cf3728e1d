"""A Model's status by what was seen."""

from typing import Any

import pytest
from tests.operator.models import gpu_spec, model, sim_spec

from quarterdeck.kube.conditions import ConditionType, Reason
from quarterdeck.operator.render.request import ReplicaState
from quarterdeck.operator.scaling import Decision
from quarterdeck.operator.summarize import MAX_SCALINGS, Observation, Problem, summarize

NOW = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T00:01:00Z"
ONE = Decision(1, "created")
READY = ReplicaState(desired=1, ready=1, updated=1)
DOWNLOADING = Problem(ConditionType.WEIGHTS_READY, Reason.DOWNLOADING, "3 of 15 GiB.", True)
UNAUTHORIZED = Problem(ConditionType.WEIGHTS_READY, Reason.HUB_UNAUTHORIZED, "401 of the hub.")
NO_GPU = Problem(ConditionType.SCHEDULED, Reason.NO_SUCH_ACCELERATOR, "No node has one.")
REFUSED = Problem(ConditionType.ACCEPTED, Reason.NAME_CONFLICT, "Model b has the name.")
T, F, U = "True", "False", "Unknown"

CASES: list[tuple[str, dict[str, Any], Observation, tuple[str, ...], str, str]] = [
    ("ready", {}, Observation(decision=ONE, replicas=READY, is_published=True), (T,) * 6, "Ready", "Serving"),
    (
        "not published yet",
        {},
        Observation(decision=ONE, replicas=READY),
        (T, T, T, T, T, F),
        "ConfigurationNotWritten",
        "Serving",
    ),
    ("starting", {}, Observation(decision=ONE), (T, T, T, T, F, U), "Starting", "Starting"),
    ("downloading", {}, Observation(decision=ONE, finding=DOWNLOADING), (T, T, F, U, U, U), "Downloading", "Starting"),
    (
        "unauthorized",
        {},
        Observation(decision=ONE, finding=UNAUTHORIZED),
        (T, T, F, U, U, U),
        "HubUnauthorized",
        "Failed",
    ),
    ("no gpu", {}, Observation(decision=ONE, finding=NO_GPU), (T, T, T, F, U, U), "NoSuchAccelerator", "Failed"),
    ("refused", {}, Observation(problem=REFUSED), (F, U, U, U, U, U), "NameConflict", "Failed"),
    (
        "refused while the last one serves",
        {},
        Observation(problem=REFUSED, decision=ONE, replicas=READY, is_published=True),
        (F, T, T, T, T, T),
        "NameConflict",
        "Serving",
    ),
    (
        "a second replica fails",
        {},
        Observation(decision=Decision(2, ""), replicas=READY, finding=NO_GPU, is_published=True),
        (T,) * 6,
        "NoSuchAccelerator",
        "Serving",
    ),
    (
        "rolling out",
        {},
        Observation(decision=ONE, replicas=READY, is_published=True, is_rolling_out=True),
        (T,) * 6,
        "RollingOut",
        "Serving",
    ),
    (
        "suspended",
        {"suspend": True},
        Observation(decision=Decision(0, "suspended")),
        (T, T, U, U, F, F),
        "Suspended",
        "Suspended",
    ),
    ("zero", {}, Observation(decision=Decision(0, "idle"), is_published=True), (T,) * 6, "ScaledToZero", "Zero"),
]


@pytest.mark.parametrize(
    ("spec", "seen", "statuses", "reason", "state"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_status_tells_where_it_stands(
    spec: dict[str, Any], seen: Observation, statuses: tuple[str, ...], reason: str, state: str
) -> None:
    status = summarize(model(**sim_spec(**spec)), seen, NOW)
    assert tuple(each.status for each in status.conditions[:-1]) == statuses
    ready = status.conditions[-1]
    assert (ready.type, ready.reason, status.state) == ("Ready", reason, state)
    assert ready.status == ("True" if set(statuses) == {T} else "False")
    assert status.message


def test_the_same_observation_makes_the_same_status_whatever_the_time() -> None:
    first = summarize(model(**gpu_spec()), CASES[0][2], NOW)
    body = first.model_dump(mode="json", exclude_none=True)
    assert summarize(model(status=body, **gpu_spec()), CASES[0][2], LATER) == first


def test_a_transition_time_is_that_of_the_change() -> None:
    first = summarize(model(), Observation(decision=ONE), NOW)
    body = first.model_dump(mode="json", exclude_none=True)
    second = summarize(model(status=body, **sim_spec()), CASES[0][2], LATER)
    times = {each.type: each.last_transition_time for each in second.conditions}
    assert (times["Accepted"], times["EngineReady"], times["Ready"]) == (NOW, LATER, LATER)


def test_the_last_five_scalings_are_kept_newest_first() -> None:
    status = summarize(model(), Observation(), NOW)
    for number in range(8):
        body = status.model_dump(mode="json", exclude_none=True)
        seen = Observation(decision=Decision(number + 1, f"because {number}"), previous=number)
        status = summarize(model(status=body, **sim_spec()), seen, NOW)
    assert [each.to for each in status.last_scalings] == [8, 7, 6, 5, 4]
    assert len(status.last_scalings) == MAX_SCALINGS
    assert status.last_scalings[0].reason == "because 7"


def test_external_endpoints_need_no_engine() -> None:
    external = model(endpoints=[{"url": "http://10.0.0.7:8000"}])
    status = summarize(external, Observation(is_published=True), NOW)
    assert (status.conditions[-1].status, status.conditions[-1].reason) == ("True", "ExternalEndpoints")
