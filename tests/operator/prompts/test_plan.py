from typing import Any

from quarterdeck.kube.resources.prompt import Prompt
from quarterdeck.operator.prompts.plan import Plan, PlatformPrompt, make_plan


def prompt(**spec: Any) -> Prompt:
    return Prompt.parse({"metadata": {"name": "greet"}, "spec": {"text": "Hello", **spec}})


def known(of: Prompt, **fields: Any) -> PlatformPrompt:
    return PlatformPrompt(**{"id": "prompt_1", "latest_version": 3, "digest": of.version().digest, **fields})


def test_a_prompt_that_is_not_there_is_created() -> None:
    assert make_plan(prompt(), None) == Plan(create=True)


def test_a_prompt_that_is_equal_needs_nothing() -> None:
    one = prompt(labels=["production"], description="d", teams=["red"])
    plan = make_plan(one, known(one, labels={"production": {"version": 3}}, description="d", teams=("red",)))
    assert plan.is_empty


def test_fields_that_are_not_set_are_left_alone() -> None:
    assert make_plan(prompt(), known(prompt(), description="by hand", teams=("red",))).is_empty


def test_other_content_becomes_a_version_and_its_labels_move() -> None:
    plan = make_plan(prompt(text="Hi", labels=["production"]), known(prompt(), labels={"production": {"version": 3}}))
    assert (plan.add_version, plan.labels) == (True, ("production",))


def test_a_label_that_was_moved_elsewhere_is_moved_back() -> None:
    one = prompt(labels=["production"])
    assert make_plan(one, known(one, labels={"production": {"version": 2}})).labels == ("production",)


def test_a_label_that_is_split_is_left_alone() -> None:
    one = prompt(labels=["production"])
    plan = make_plan(one, known(one, labels={"production": {"split": [{"version": 2, "weight": 1}]}}))
    assert plan.is_empty
    assert plan.notes == ("label production is split between versions and is left alone",)


def test_an_archived_prompt_is_taken_back_before_its_versions_change() -> None:
    plan = make_plan(prompt(text="new", description="d"), known(prompt(), is_archived=True))
    assert plan.update == {"archived": False, "description": "d"}
    assert plan.add_version


def test_defaults_that_the_api_server_fills_in_change_nothing() -> None:
    plain = prompt(text="{{ x }}", variables={"x": {"default": None}})
    filled = prompt(text="{{ x }}", variables={"x": {"default": None, "type": "string"}})
    assert plain.version().digest == filled.version().digest
