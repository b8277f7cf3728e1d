"""Laws that hold for whatever objects there are."""

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generated_resources import generate

from quarterdeck.kube.compile.compiler import Compiled, compile_objects
from quarterdeck.kube.compile.runtime import Canary, Runtime
from quarterdeck.kube.conditions import Reason
from quarterdeck.kube.resources.object import InvalidObjectError
from quarterdeck.kube.resources.registry import RESOURCES
from quarterdeck.settings.loading import parse

BASE = {
    "models": [{"name": "gpt-4o", "endpoints": [{"url": "http://x"}], "aliases": ["x:y"]}],
    "gateway": {"forward_headers": ["x-session"]},
    "cache": {"policies": {"llama": {"ttl_seconds": 5}}},
}


def objects_of(rng: Random, count: int) -> list[dict[str, Any]]:
    """Objects with different names for each kind."""
    found = {}
    for _ in range(count):
        each = generate(rng)
        found[each["kind"], each["metadata"]["name"]] = each
    return list(found.values())


def runtimes_of(rng: Random, objects: list[dict[str, Any]]) -> dict[str, Runtime]:
    return {
        each["metadata"]["name"]: Runtime(
            state=rng.choice(("Serving", "Zero", "Failed")),
            canary=rng.choice((None, Canary("s", "c", rng.choice((0, 10, 100))))),
        )
        for each in objects
        if each["kind"] == "Model"
    }


def compiled(objects: list[dict[str, Any]], runtimes: dict[str, Runtime]) -> Compiled:
    result = compile_objects(BASE, objects, runtimes)
    assert result.problem is None
    assert result.documents is not None
    return result


def test_two_thousand_generated_specs_are_parsed_and_compiled_without_an_exception() -> None:
    rng = Random(14)
    kinds = {each.kind: each for each in RESOURCES}
    readable = 0
    for _ in range(400):
        objects = objects_of(rng, 5) if rng.random() < 0.9 else objects_of(rng, 12)
        for each in objects:
            try:
                kinds[each["kind"]].parse(each)
                readable += 1
            except InvalidObjectError as error:
                assert "\n" not in str(error)
        result = compiled(objects, runtimes_of(rng, objects))
        assert parse(result.documents.config) == result.config  # type: ignore[union-attr]
    assert readable > 600  # not only absurd ones


seeds = st.integers(0, 2**32)


@settings(max_examples=150, deadline=None)
@given(seed=seeds, data=st.data())
def test_the_order_of_the_objects_does_not_matter(seed: int, data: st.DataObject) -> None:
    rng = Random(seed)
    objects = objects_of(rng, 8)
    runtimes = runtimes_of(rng, objects)
    other = data.draw(st.permutations(objects))
    assert compiled(list(other), runtimes) == compiled(objects, runtimes)


@settings(max_examples=150, deadline=None)
@given(seed=seeds)
def test_removing_an_object_that_is_not_accepted_changes_nothing_else(seed: int) -> None:
    rng = Random(seed)
    objects = objects_of(rng, 10)
    runtimes = runtimes_of(rng, objects)
    before = compiled(objects, runtimes)
    kept = [
        each for each in objects if before.verdicts.get(key(each)) is None or before.verdicts[key(each)].is_accepted
    ]
    after = compiled(kept, runtimes)
    assert after.documents == before.documents
    assert after.verdicts == {name: each for name, each in before.verdicts.items() if each.is_accepted}


@settings(max_examples=150, deadline=None)
@given(seed=seeds)
def test_removing_an_object_changes_only_what_shares_its_names_or_names_it(seed: int) -> None:
    rng = Random(seed)
    objects = objects_of(rng, 10)
    runtimes = runtimes_of(rng, objects)
    gone = rng.choice(objects)
    before = compiled(objects, runtimes)
    after = compiled([each for each in objects if each is not gone], runtimes)
    touched = connected(gone, objects)
    for each in objects:
        if key(each) not in touched:
            assert after.verdicts.get(key(each)) == before.verdicts.get(key(each))


@settings(max_examples=150, deadline=None)
@given(seed=seeds)
def test_a_name_belongs_to_the_oldest_object_that_can_be_accepted(seed: int) -> None:
    rng = Random(seed)
    objects = objects_of(rng, 10)
    verdicts = compiled(objects, {}).verdicts
    for each in objects:
        verdict = verdicts.get(key(each))
        if verdict is None or verdict.reason is not Reason.NAME_CONFLICT:
            continue
        winner = verdict.message.partition(" belongs to ")[2]
        if winner == "the platform's configuration":
            continue
        kind, name = winner.split()
        assert verdicts[kind, name].is_accepted
        assert age(next(other for other in objects if key(other) == (kind, name))) <= age(each)


def key(each: dict[str, Any]) -> tuple[str, str]:
    return each["kind"], each["metadata"]["name"]


def age(each: dict[str, Any]) -> tuple[str, str]:
    return each["metadata"]["creationTimestamp"], each["metadata"]["uid"]


def names_of(each: dict[str, Any]) -> set[str]:
    """Every public name that an object has or names."""
    spec, own = each["spec"], each["metadata"]["name"]
    found = {spec.get("servedName", own), *spec.get("aliases", ())}
    found |= {target["model"] for part in ("targets", "fallbacks") for target in spec.get(part, ())}
    found |= {spec["mirror"]["model"]} if "mirror" in spec else set()
    found |= {f"team:{spec.get('name', own)}"} if each["kind"] == "Team" else set()
    if each["kind"] == "Model":
        found.add(f"model:{own}")
    return found | ({f"model:{spec['modelRef']['name']}"} if "modelRef" in spec else set())


def connected(start: dict[str, Any], objects: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """The objects that share a name with `start`, or with one that does."""
    names, found = names_of(start), {key(start)}
    while True:
        more = [each for each in objects if key(each) not in found and names & names_of(each)]
        if not more:
            return found
        for each in more:
            names |= names_of(each)
            found.add(key(each))
