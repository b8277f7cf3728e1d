"""Laws of the plan: whatever replicas do, they converge, and one adapter's failure is its own."""

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.kube.conditions import Reason
from quarterdeck.operator.adapters.plan import (
    MAX_RETRY_SECONDS,
    RETIRE_SECONDS,
    Replica,
    failed,
    make_plan,
    next_due,
    pods_of,
    retire,
    version_in_use,
)
from quarterdeck.operator.adapters.wanted import Wanted

PUBLIC = ("poet", "coder", "judge")
VERSIONS = ("0123456789", "abcdef0123")


def wanted_of(versions: dict[str, str]) -> list[Wanted]:
    return [Wanted(public, public, f"{public}@{version}", f"/a/{public}") for public, version in versions.items()]


def replica(number: int, loaded: set[str] | None = None) -> Replica:
    loaded = loaded or set()
    return Replica(f"pod-{number}", f"key-{number}", f"http://pod-{number}", set(loaded), set(loaded))


wants = st.dictionaries(st.sampled_from(PUBLIC), st.sampled_from(VERSIONS)).map(wanted_of)
loads = st.sets(st.sampled_from([f"{public}@{version}" for public in PUBLIC for version in VERSIONS] + ["theirs"]))
replicas = st.lists(loads, max_size=4).map(lambda sets: [replica(number, each) for number, each in enumerate(sets)])


def carry_out(wanted: list[Wanted], all_replicas: list[Replica], now: float, broken: frozenset[str]) -> int:
    """Play the engines: what is `broken` ("pod/name") can't be loaded."""
    by_key = {each.key: each for each in all_replicas}
    retire(wanted, all_replicas, now)
    actions = make_plan(wanted, all_replicas, now)
    for action in actions:
        on = by_key[action.replica]
        if action.act == "unload":
            on.loaded.discard(action.engine_name)
            on.probed.discard(action.engine_name)
        elif f"{on.pod}/{action.engine_name}" in broken:
            failed(on, action.engine_name, Reason.ADAPTER_LOAD_FAILED, "No.", now)
        else:
            on.loaded.add(action.engine_name)
            on.probed.add(action.engine_name)
            on.failures.pop(action.engine_name, None)
    return len(actions)


@given(wants, replicas)
def test_replicas_end_with_what_is_wanted_and_with_what_others_loaded(
    wanted: list[Wanted], all_replicas: list[Replica]
) -> None:
    theirs = [("theirs" in each.loaded) for each in all_replicas]
    for now in (0.0, 1.0, RETIRE_SECONDS + 2, 2 * RETIRE_SECONDS + 4):
        carry_out(wanted, all_replicas, now, frozenset())
    names = {each.engine_name for each in wanted}
    for each, had in zip(all_replicas, theirs, strict=True):
        assert each.loaded == names | ({"theirs"} if had else set())
    assert make_plan(wanted, all_replicas, 1e6) == []
    assert next_due(wanted, all_replicas, 1e6) is None


@given(wants, replicas, st.data())
def test_what_is_broken_on_one_replica_is_loaded_everywhere_else(
    wanted: list[Wanted], all_replicas: list[Replica], data: st.DataObject
) -> None:
    pairs = [f"{each.pod}/{one.engine_name}" for each in all_replicas for one in wanted]
    broken = frozenset(data.draw(st.sets(st.sampled_from(pairs)))) if pairs else frozenset()
    for each in all_replicas:
        each.loaded.clear()
        each.probed.clear()
    for now in range(0, 300, 5):
        carry_out(wanted, all_replicas, float(now), broken)
    for each in all_replicas:
        for one in wanted:
            assert each.serves(one.engine_name) == (f"{each.pod}/{one.engine_name}" not in broken)
    due = next_due(wanted, all_replicas, 295.0)
    assert (due is not None) == bool(broken)
    assert due is None or due <= MAX_RETRY_SECONDS


@given(wants, replicas)
def test_an_adapter_that_is_replaced_is_served_all_the_time(wanted: list[Wanted], all_replicas: list[Replica]) -> None:
    """Where a version is served somewhere, gateways are never told of one that is served nowhere."""
    for now in range(0, 60, 3):
        before = {each.public: version_in_use(each, all_replicas) for each in wanted}
        served = {each.public: bool(pods_of(before[each.public], all_replicas)) for each in wanted}
        carry_out(wanted, all_replicas, float(now), frozenset())
        for each in wanted:
            if served[each.public]:
                assert pods_of(version_in_use(each, all_replicas), all_replicas)


def test_a_version_stays_while_the_next_one_can_not_be_loaded() -> None:
    old, new = "poet@0123456789", wanted_of({"poet": "abcdef0123"})
    on = replica(1, {old})
    for now in range(0, 200, 5):
        carry_out(new, [on], float(now), frozenset({f"pod-1/{new[0].engine_name}"}))
    assert old in on.loaded
    assert version_in_use(new[0], [on]) == old


def test_pauses_between_attempts_double_up_to_a_minute() -> None:
    on = replica(1)
    delays = []
    for _ in range(8):
        failed(on, "poet@0123456789", Reason.ADAPTER_NOT_FOUND, "No.", 0.0)
        delays.append(on.failures["poet@0123456789"].due)
    assert delays == [2, 4, 8, 16, 32, 60, 60, 60]
