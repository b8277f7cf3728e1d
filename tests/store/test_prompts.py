"""Versions are immutable and numbered once for ever; labels move; each change leaves an event."""

import asyncio
from typing import Any

import pytest

from quarterdeck.errors import BadRequestError, ConflictError, NotFoundError
from quarterdeck.settings.prompts import LabelSpec, PromptSpec
from quarterdeck.store import prompts as module
from quarterdeck.store.database import Database
from quarterdeck.store.prompts import PromptStore

ORG: dict[str, Any] = {"org": "default"}
MINE: dict[str, Any] = {"org": "default", "author": "key_1"}


def spec(text: str = "Hi {{ name }}", **fields: Any) -> PromptSpec:
    return PromptSpec(text=text, **fields)


def split(first: int, second: int, weight: float = 10, **fields: Any) -> LabelSpec:
    targets = [{"version": first, "weight": 100 - weight}, {"version": second, "weight": weight}]
    return LabelSpec.model_validate({"split": targets, **fields})


@pytest.fixture
def prompts(database: Database) -> PromptStore:
    return PromptStore(database)


async def labels_of(prompts: PromptStore, id: str) -> dict[str, Any]:
    return {row.label: row.target for row in (await prompts.labels([id])).get(id, ())}


async def test_a_prompt_comes_back_as_it_was_made(prompts: PromptStore) -> None:
    made = await prompts.create(
        "greet", spec(model="m"), **MINE, description="d", teams=["red"], message="first", labels=["production"]
    )
    assert await prompts.retrieve("greet", **ORG) == await prompts.retrieve(made.id, **ORG) == made
    assert (made.latest, made.teams, made.description, made.author) == (1, ("red",), "d", "key_1")
    version = await prompts.version("greet", 1, **ORG)
    assert (version.spec, version.message, version.prompt) == (spec(model="m"), "first", made.id)
    assert await labels_of(prompts, made.id) == {"production": {"version": 1}}


async def test_a_name_is_used_once_in_an_organisation(prompts: PromptStore) -> None:
    made = await prompts.create("greet", spec(), **MINE)
    with pytest.raises(ConflictError, match="already exists"):
        await prompts.create("greet", spec("other"), **MINE)
    other = await prompts.create("greet", spec("other"), org="acme", author="key_2")
    assert other.id != made.id
    for ref in ("greet", made.id):
        with pytest.raises(NotFoundError):
            await prompts.retrieve(ref, org="third")
    with pytest.raises(NotFoundError):
        await prompts.add_version(made.id, spec("x"), org="acme", author="key_2")


async def test_versions_are_numbered_and_never_change(prompts: PromptStore) -> None:
    await prompts.create("greet", spec(), **MINE)
    second, is_new = await prompts.add_version("greet", spec("Hello"), **MINE, message="shorter", labels=["staging"])
    assert (second.version, is_new) == (2, True)
    again, is_new = await prompts.add_version("greet", spec("Hello"), **MINE)
    assert (again, is_new) == (second, False)
    page = await prompts.versions("greet", **ORG, limit=1)
    assert ([row.version for row in page.rows], page.has_more) == ([2], True)
    assert [row.version for row in (await prompts.versions("greet", **ORG, after=2)).rows] == [1]
    assert (await prompts.version("greet", 1, **ORG)).spec == spec()
    with pytest.raises(NotFoundError, match="has no version 3"):
        await prompts.version("greet", 3, **ORG)


async def test_a_version_on_an_old_base_is_a_conflict(prompts: PromptStore) -> None:
    await prompts.create("greet", spec(), **MINE)
    await prompts.add_version("greet", spec("2"), **MINE, base=1)
    with pytest.raises(ConflictError, match="is 2, not 1"):
        await prompts.add_version("greet", spec("3"), **MINE, base=1)
    assert (await prompts.retrieve("greet", **ORG)).latest == 2


async def test_versions_added_at_once_get_a_number_each(prompts: PromptStore) -> None:
    await prompts.create("greet", spec(), **MINE)
    added = await asyncio.gather(*(prompts.add_version("greet", spec(str(n)), **MINE) for n in range(8)))
    assert sorted(row.version for row, _ in added) == list(range(2, 10))
    for row, _ in added:
        assert (await prompts.version("greet", row.version, **ORG)).spec == row.spec


async def test_a_label_points_at_versions_that_exist(prompts: PromptStore) -> None:
    made = await prompts.create("greet", spec(), **MINE)
    await prompts.add_version("greet", spec("2"), **MINE)
    row = await prompts.set_label("greet", "production", split(1, 2, sticky="session"), **MINE)
    assert row.spec == split(1, 2, sticky="session")
    with pytest.raises(NotFoundError, match="has no version 9"):
        await prompts.set_label("greet", "production", split(1, 9), **MINE)
    assert await labels_of(prompts, made.id) == {"production": row.target}
    await prompts.delete_label("greet", "production", **MINE)
    with pytest.raises(NotFoundError, match="no label 'production'"):
        await prompts.delete_label("greet", "production", **MINE)


async def test_a_canary_goes_back_to_its_first_version_and_a_release_to_the_one_before(prompts: PromptStore) -> None:
    await prompts.create("greet", spec(), **MINE, labels=["production"])
    await prompts.add_version("greet", spec("2"), **MINE)
    await prompts.set_label("greet", "production", split(1, 2), **MINE)
    back = await prompts.roll_back("greet", "production", **MINE, reason="too dear")
    assert back.spec == LabelSpec(version=1)
    await prompts.set_label("greet", "production", split(1, 2), **MINE)
    await prompts.set_label("greet", "production", LabelSpec(version=2), **MINE)
    assert (await prompts.roll_back("greet", "production", **MINE)).spec == LabelSpec(version=1)
    assert (await prompts.roll_back("greet", "production", **MINE)).spec == LabelSpec(version=2)
    assert (await prompts.roll_back("greet", "production", **MINE, version=1)).spec == LabelSpec(version=1)
    events = (await prompts.events("greet", **ORG, limit=100)).rows
    assert [each.kind for each in events if each.label][-3:] == ["label.rolled_back", "label.set", "label.set"]
    first = next(each for each in reversed(events) if each.kind == "label.rolled_back")
    assert (first.reason, first.before, first.after) == (
        "too dear",
        split(1, 2).model_dump(exclude_defaults=True),
        {"version": 1},
    )


async def test_a_label_that_never_moved_has_nothing_to_go_back_to(prompts: PromptStore) -> None:
    await prompts.create("greet", spec(), **MINE, labels=["production"])
    with pytest.raises(ConflictError, match="no other version"):
        await prompts.roll_back("greet", "production", **MINE)


async def test_a_roll_back_by_the_worker_does_not_undo_a_later_change(prompts: PromptStore) -> None:
    await prompts.create("greet", spec(), **MINE)
    await prompts.add_version("greet", spec("2"), **MINE)
    guard = {"max_error_rate": 0.1}
    seen = await prompts.set_label("greet", "production", split(1, 2, guard=guard), **MINE)
    assert await prompts.guarded_labels() == (seen,)
    await prompts.set_label("greet", "production", LabelSpec(version=2), **MINE)
    with pytest.raises(ConflictError, match="changed meanwhile"):
        await prompts.roll_back("greet", "production", **MINE, since=seen.updated)
    assert await prompts.guarded_labels() == ()


async def test_a_deleted_prompts_numbers_are_not_used_again(prompts: PromptStore) -> None:
    made = await prompts.create("greet", spec(), **MINE, labels=["production"])
    await prompts.add_version("greet", spec("2"), **MINE)
    await prompts.delete("greet", **MINE)
    for ref in ("greet", made.id):
        with pytest.raises(NotFoundError):
            await prompts.retrieve(ref, **ORG)
    assert made.id not in await prompts.revisions()
    again = await prompts.create("greet", spec("new"), **MINE)
    assert (again.id, again.latest) == (made.id, 3)
    assert [row.version for row in (await prompts.versions("greet", **ORG)).rows] == [3]
    assert await labels_of(prompts, made.id) == {}


async def test_each_change_counts_the_revision_up_and_leaves_an_event(prompts: PromptStore) -> None:
    made = await prompts.create("greet", spec(), **MINE, labels=["production"])
    await prompts.update("greet", **MINE, description="d", teams=["red", "blue"], archived=True)
    after = await prompts.update("greet", **MINE, teams=None, archived=False)
    assert (after.revision, after.teams, after.archived) == (made.revision + 2, None, None)
    assert (await prompts.revisions())[made.id] == after.revision
    page = await prompts.events("greet", **ORG, limit=4)
    assert ([each.kind for each in page.rows], page.has_more) == (
        ["unarchived", "updated", "archived", "updated"],
        True,
    )
    assert page.rows[3].after == {"description": "d", "teams": ["blue", "red"]}
    rest = await prompts.events("greet", **ORG, after=page.rows[-1].id)
    assert [each.kind for each in rest.rows] == ["label.set", "version.created"]


async def test_prompts_are_listed_by_name_in_pages_for_a_team(prompts: PromptStore) -> None:
    for name in ("d", "a", "c/x", "b"):
        await prompts.create(name, spec(), **MINE, teams=["red"] if name in "ab" else None)
    await prompts.create("theirs", spec(), org="acme", author="key_2")
    page = await prompts.list(**ORG, limit=3)
    assert ([row.name for row in page.rows], page.has_more) == (["a", "b", "c/x"], True)
    assert [row.name for row in (await prompts.list(**ORG, after=page.rows[-1].id)).rows] == ["d"]
    page = await prompts.list(**ORG, team="blue", limit=1)
    assert ([row.name for row in page.rows], page.has_more) == (["c/x"], True)
    for hidden in ("a", "missing"):  # another team's prompt is as one that does not exist
        with pytest.raises(NotFoundError, match=f"The prompt '{hidden}' does not exist or"):
            await prompts.list(**ORG, team="blue", after=hidden)
    await prompts.update("d", **MINE, archived=True)
    assert [row.name for row in (await prompts.list(**ORG)).rows] == ["a", "b", "c/x"]
    assert [row.name for row in (await prompts.list(**ORG, archived=True, name="d")).rows] == ["d"]


async def test_what_gateways_keep_is_read_at_once(prompts: PromptStore) -> None:
    made = await prompts.create("greet", spec(), **MINE, labels=["production"])
    other = await prompts.create("greet", spec("o"), org="acme", author="key_2")
    assert {row.id for row in await prompts.retrieve_all([made.id, other.id, "prompt_none"])} == {made.id, other.id}
    contents = await prompts.contents([(made.id, 1), (other.id, 1), (made.id, 7)])
    assert {row.prompt: row.spec.text for row in contents} == {made.id: "Hi {{ name }}", other.id: "o"}


async def test_prompts_and_labels_are_bounded(prompts: PromptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await prompts.create("greet", spec(), **MINE)
    for n in range(50):
        await prompts.set_label("greet", f"l{n}", LabelSpec(version=1), **MINE)
    with pytest.raises(BadRequestError, match="at most 50 labels"):
        await prompts.set_label("greet", "one-more", LabelSpec(version=1), **MINE)
    monkeypatch.setattr(module, "MAX_PROMPTS", 1)
    with pytest.raises(BadRequestError, match="at most 1 prompts"):
        await prompts.create("second", spec(), **MINE)
    assert [row.name for row in (await prompts.list(**ORG)).rows] == ["greet"]
