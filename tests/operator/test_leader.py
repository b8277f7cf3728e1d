"""Leader election on a Lease: one leader, and a successor in time."""

import asyncio
from typing import Any

import pytest
from tests.operator.fake_cluster import FakeCluster

from quarterdeck.operator.cluster import ClusterError
from quarterdeck.operator.leader import LEASE_SECONDS, STEP_DOWN_SECONDS, Leader, Sighting, decide
from quarterdeck.operator.manifests import Key

LEASE = Key("Lease", "operator")


def lease(holder: str, version: str = "1") -> dict[str, Any]:
    return {
        "metadata": {"name": "operator", "resourceVersion": version},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": LEASE_SECONDS},
    }


@pytest.mark.parametrize(
    ("found", "sighting", "now", "expected"),
    [
        (None, None, 0.0, "take"),
        (lease(""), None, 0.0, "take"),
        (lease("me"), None, 0.0, "take"),
        (lease("other"), None, 0.0, "wait"),
        (lease("other"), Sighting("1", 0.0), 9.9, "wait"),
        (lease("other"), Sighting("1", 0.0), 10.1, "take"),
        (lease("other", "2"), Sighting("1", 0.0), 99.0, "wait"),
    ],
)
def test_a_lease_is_taken_when_it_is_free_or_was_not_renewed(
    found: dict[str, Any] | None, sighting: Sighting | None, now: float, expected: str
) -> None:
    assert decide(found, "me", sighting, now) == expected


class Candidates:
    """Leaders over one cluster, with a clock of their own."""

    def __init__(self, *names: str) -> None:
        self.now = 0.0
        self.cluster = FakeCluster()
        self.leaders = {
            name: Leader(
                self.cluster,  # type: ignore[arg-type]
                "models",
                "operator",
                name,
                lambda is_leader: None,
                clock=lambda: self.now,
            )
            for name in names
        }

    async def step(self, *names: str) -> list[str]:
        for name in names:
            await self.leaders[name]._step()
        return [name for name, leader in self.leaders.items() if leader.is_leader]


async def test_there_is_one_leader_and_the_other_follows_when_it_is_gone() -> None:
    both = Candidates("a", "b")
    assert await both.step("a", "b") == ["a"]
    for both.now in (3.0, 6.0, 9.0, 12.0):
        assert await both.step("a", "b") == ["a"]
    gone_at = both.now  # `a` is killed
    while await both.step("b") != ["a", "b"]:
        both.now += 1.0
        assert both.now - gone_at < 15
    both.leaders["a"].is_leader = False
    assert await both.step("b") == ["b"]


async def test_a_leader_that_gives_the_lease_back_is_followed_at_once() -> None:
    both = Candidates("a", "b")
    await both.step("a", "b")
    task = asyncio.create_task(both.leaders["a"].run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert both.cluster.objects[LEASE]["spec"]["holderIdentity"] == ""
    assert await both.step("b") == ["b"]


async def test_two_that_write_at_once_do_not_both_lead() -> None:
    both = Candidates("a", "b")
    await both.step("a")
    both.cluster.objects[LEASE]["spec"]["holderIdentity"] = ""
    results = await asyncio.gather(both.leaders["a"]._try(), both.leaders["b"]._try(), return_exceptions=True)
    assert [each for each in results if isinstance(each, Exception)] == []
    assert sum(leader.is_leader for leader in both.leaders.values()) == 1


async def test_a_leader_that_cannot_renew_steps_down_before_another_may_follow() -> None:
    both = Candidates("a", "b")
    await both.step("a", "b")

    def refuse(verb: str, key: Key) -> None:
        raise ClusterError(0, "Unavailable", "no answer")

    both.cluster.before = refuse
    both.now += STEP_DOWN_SECONDS + 0.1
    assert await both.step("a") == []
    assert STEP_DOWN_SECONDS < LEASE_SECONDS
