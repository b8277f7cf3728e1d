"""Laws of the plan."""

from hypothesis import given
from hypothesis import strategies as st
from tests.model_lifecycle.fake_runtime import models

from quarterdeck.model_lifecycle.desired import Desired
from quarterdeck.model_lifecycle.plan import InstanceState, Plan, Seen, make_plan

CONTEXTS = (64, 128)
NAMES = ("a", "b", "c")
VERSIONS = {(name, context): models(name, context=context)[name] for name in NAMES for context in CONTEXTS}
STATES: tuple[InstanceState, ...] = ("starting", "ready", "stopping")

desired_sets = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(st.sampled_from(CONTEXTS), st.booleans()), max_size=3
).map(
    lambda chosen: {name: Desired(name, VERSIONS[name, at[0]].engine, is_stopped=at[1]) for name, at in chosen.items()}
)
instance_sets = st.dictionaries(st.sampled_from(sorted(VERSIONS)), st.sampled_from(STATES)).map(
    lambda chosen: [
        Seen(f"{name}-{at}", name, VERSIONS[name, at].digest, state) for (name, at), state in chosen.items()
    ]
)
names = st.sets(st.sampled_from(NAMES))
limits = st.none() | st.integers(1, 2)


@given(desired_sets, instance_sets, names, names, limits)
def test_every_instance_that_does_not_end_has_one_fate(
    desired: dict[str, Desired], instances: list[Seen], held: set[str], room: set[str], limit: int | None
) -> None:
    plan = make_plan(desired, instances, held_back=held, makes_room=room, max_starting=limit)
    fates = [*plan.keep, *plan.drain, *plan.remove]
    assert sorted(fates) == sorted(each.app for each in instances if each.state != "stopping")


@given(desired_sets, instance_sets, names, limits)
def test_a_wanted_model_that_serves_goes_on_serving(
    desired: dict[str, Desired], instances: list[Seen], held: set[str], limit: int | None
) -> None:
    plan = make_plan(desired, instances, held_back=held, max_starting=limit)
    for name, model in desired.items():
        serving = [each for each in instances if each.model == name and each.state == "ready"]
        if serving and not model.is_stopped:
            assert any(each.app in plan.keep for each in serving)


@given(desired_sets, instance_sets, names, names, limits)
def test_nothing_is_started_twice_or_held_back_or_unwanted(
    desired: dict[str, Desired], instances: list[Seen], held: set[str], room: set[str], limit: int | None
) -> None:
    plan = make_plan(desired, instances, held_back=held, makes_room=room, max_starting=limit)
    started = [model.name for model in plan.start]
    assert len(set(started)) == len(started)
    for model in plan.start:
        assert model.name not in held
        assert desired[model.name] == model and not model.is_stopped
        assert not any(each.model == model.name and each.digest == model.digest for each in instances)


@given(desired_sets, instance_sets, names, st.integers(1, 2))
def test_no_more_start_at_a_time_than_allowed(
    desired: dict[str, Desired], instances: list[Seen], held: set[str], limit: int
) -> None:
    plan = make_plan(desired, instances, held_back=held, max_starting=limit)
    starting = sum(1 for each in instances if each.state == "starting" and each.app in plan.keep)
    assert not plan.start or starting + len(plan.start) <= limit


@given(desired_sets, instance_sets)
def test_the_plan_ends_where_everything_runs_as_wanted(desired: dict[str, Desired], instances: list[Seen]) -> None:
    """Carried out to the end again and again, the plan reaches a state in which it has nothing to do."""
    running = [each for each in instances if each.state != "stopping"]
    for _ in range(4):
        plan = make_plan(desired, running)
        kept = [Seen(each.app, each.model, each.digest, "ready") for each in running if each.app in plan.keep]
        running = kept + [Seen(f"{each.name}-{each.digest}", each.name, each.digest, "ready") for each in plan.start]
    assert make_plan(desired, running) == Plan(keep=tuple(each.app for each in running))
    wanted = {(each.name, each.digest) for each in desired.values() if not each.is_stopped}
    assert {(each.model, each.digest) for each in running} == wanted


def test_a_model_that_does_not_serve_goes_before_a_change_of_one_that_does() -> None:
    desired = models("a", "b", context=64)
    old = Seen("a-old", "a", models("a")["a"].digest, "ready")
    plan = make_plan(desired, [old], max_starting=1)
    assert ([each.name for each in plan.start], plan.waiting) == (["b"], ("a",))
