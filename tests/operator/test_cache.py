"""The cache of objects: newer versions win, whatever the order in which they arrive."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.event_log import MAX_EVENTS, MAX_OBJECTS, EventLog
from quarterdeck.operator.manifests import Key


def pod(name: str = "p", version: int = 1, uid: str = "u", model: str | None = "m") -> dict[str, Any]:
    labels = {"quarterdeck.dev/model": model} if model else {}
    metadata = {"name": name, "uid": uid, "resourceVersion": str(version), "labels": labels, "managedFields": [{}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"version": version}}


@given(st.permutations([1, 2, 3, 4]))
def test_the_latest_version_stays_in_whatever_order_they_arrive(order: list[int]) -> None:
    cache = ObjectCache()
    for version in order:
        cache.put(pod(version=version))
    found = cache.get("Pod", "p")
    assert found is not None and found["spec"] == {"version": 4}
    assert "managedFields" not in found["metadata"]


def test_a_late_answer_does_not_bring_a_deleted_object_back() -> None:
    cache = ObjectCache()
    cache.put(pod(version=5))
    cache.remove(pod(version=6))
    assert not cache.put(pod(version=4)) and cache.get("Pod", "p") is None
    assert cache.put(pod(version=7, uid="new"))


def test_the_deletion_of_an_earlier_object_leaves_its_successor() -> None:
    cache = ObjectCache()
    cache.put(pod(version=5, uid="new"))
    assert not cache.remove(pod(version=3, uid="old"))
    assert cache.get("Pod", "p") is not None


def test_objects_are_found_by_model_and_by_uid() -> None:
    cache = ObjectCache()
    cache.put(pod("a", uid="1"))
    cache.put(pod("b", uid="2"))
    cache.put(pod("c", uid="3", model="other"))
    assert [each["metadata"]["name"] for each in cache.of_model("m")] == ["a", "b"]
    cache.put(pod("b", uid="2", version=9, model="other"))
    assert [each["metadata"]["name"] for each in cache.of_model("m")] == ["a"]
    assert cache.of_uid("3") is cache.get("Pod", "c")
    cache.remove(pod("a", uid="1"))
    assert cache.of_model("m") == [] and cache.of_uid("1") is None


def test_a_list_corrects_what_watches_missed() -> None:
    changed: list[str] = []
    cache = ObjectCache(on_change=lambda manifest: changed.append(manifest["metadata"]["name"]))
    cache.put(pod("gone", version=1))
    cache.put(pod("kept", version=1))
    known = cache.keys("Pod")
    cache.put(pod("later", version=9))  # made after the list was asked for
    changed.clear()
    assert cache.correct("Pod", [pod("kept", version=1), pod("missed", version=4)], known) == 2
    assert sorted(changed) == ["gone", "missed"]
    assert sorted(key.name for key in cache.keys("Pod")) == ["kept", "later", "missed"]


def test_own_writes_are_kept_without_being_a_change() -> None:
    changed: list[Any] = []
    cache = ObjectCache(on_change=changed.append)
    assert cache.put(pod(version=2), is_own=True)
    assert not cache.put(pod(version=2)) and changed == []
    assert Key("Pod", "p") in cache.keys("Pod")


def event(number: int, uid: str) -> dict[str, Any]:
    return {"kind": "Event", "metadata": {"name": f"e{number}"}, "involvedObject": {"uid": uid}}


def test_events_are_bounded_by_object_and_in_all() -> None:
    log = EventLog()
    for number in range(3 * MAX_EVENTS):
        log.put(event(number, "u"))
    assert len(log.about([pod(uid="u")])) == MAX_EVENTS
    for number in range(MAX_OBJECTS + 5):
        log.put(event(number, f"x{number}"))
    assert log.about([pod(uid="u")]) == [] and log.about([pod(uid="x0")]) == []
    assert len(log.about([pod(uid=f"x{MAX_OBJECTS}")])) == 1


def test_a_repeated_event_replaces_itself() -> None:
    log = EventLog()
    log.put(event(1, "u"))
    log.put({**event(1, "u"), "count": 2})
    assert [each.get("count") for each in log.about([pod(uid="u")])] == [2]
    assert log.put({"kind": "Event", "metadata": {"name": "e"}, "involvedObject": {}}) == ""
