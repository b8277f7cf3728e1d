"""Prompts are found in memory, follow the database, and outlive its outage."""

import asyncio
import time

import pytest
from tests.inference.prompts.stored import Changed, StoredPrompts

from quarterdeck.errors import NotFoundError, ServiceUnavailableError
from quarterdeck.inference.prompts.catalogue import OVERHEAD, KnownPrompt

HI, HELLO = {"text": "Hi {{ name }}"}, {"text": "Hello {{ name }}"}


@pytest.fixture
def stored() -> StoredPrompts:
    return StoredPrompts()


def find(
    stored: StoredPrompts, ref: str, org: str = "default", team: str = "red", is_admin: bool = False
) -> KnownPrompt:
    return stored.catalogue.find(org, team, ref, is_admin=is_admin)


async def test_a_prompt_is_found_by_name_or_id_in_its_organisation(stored: StoredPrompts) -> None:
    id = stored.put("greet", HI, production=1)
    stored.put("greet", HELLO, org="acme")
    await stored.load()
    assert find(stored, "greet") is find(stored, id)
    assert find(stored, "greet", org="acme").row.org == "acme"
    for ref, org in ((id, "acme"), ("nothing", "default"), ("greet", "third")):
        with pytest.raises(NotFoundError, match="does not exist or you do not have access"):
            find(stored, ref, org=org)


async def test_a_teams_prompt_is_its_own_and_the_admins(stored: StoredPrompts) -> None:
    stored.put("greet", HI, teams=("red",))
    await stored.load()
    assert find(stored, "greet", team="red") is find(stored, "greet", team="blue", is_admin=True)
    said = []
    for ref in ("greet", "gree0"):
        with pytest.raises(NotFoundError) as caught:
            find(stored, ref, team="blue")
        said.append((caught.value.message.replace(ref, "…"), caught.value.code, caught.value.param))
    assert said[0] == said[1]  # whether another team has it is not shown


async def test_versions_of_labels_and_the_newest_are_in_memory(stored: StoredPrompts) -> None:
    split = {"split": [{"version": 1}, {"version": 3}]}
    stored.put("greet", *({"text": str(n)} for n in range(5)), production=split)
    await stored.load()
    known = find(stored, "greet")
    assert [stored.catalogue.held(known, n) is not None for n in range(1, 6)] == [True, False, True, False, True]
    assert (await stored.catalogue.read(known, 2)).text({}) == "1"
    reads = stored.reads["contents"]
    await stored.catalogue.read(known, 2)
    assert stored.reads["contents"] == reads
    with pytest.raises(NotFoundError, match="has no version 9"):
        await stored.catalogue.read(known, 9)


async def test_an_announced_change_is_read_alone_and_a_missed_one_by_poll(stored: StoredPrompts) -> None:
    id, other = stored.put("greet", HI, production=1), stored.put("other", HI)
    await stored.load()
    stored.put("greet", HI, HELLO, production=2)
    await stored.catalogue.catch_up([Changed(id)])
    assert find(stored, "greet").labels["production"].versions == (2,)
    reads = dict(stored.reads)
    await stored.load()  # nothing changed
    assert {**stored.reads, "revisions": 0} == {**reads, "revisions": 0}
    stored.put("other", HELLO, HI)
    await stored.load()
    assert find(stored, other).row.latest == 2


async def test_a_deleted_prompt_is_forgotten(stored: StoredPrompts) -> None:
    id, other = stored.put("greet", HI), stored.put("other", HI)
    await stored.load()
    del stored.rows[id]
    await stored.catalogue.catch_up([Changed(id)])
    del stored.rows[other]
    await stored.load()
    assert len(stored.catalogue) == 0
    with pytest.raises(NotFoundError):
        find(stored, "greet")


async def test_while_the_database_is_away_the_last_known_prompts_serve(stored: StoredPrompts) -> None:
    id = stored.put("greet", HI, HELLO, production=1)
    await stored.load()
    stored.is_away = True
    with pytest.raises(ServiceUnavailableError):
        await stored.catalogue.catch_up([Changed(id)])
    with pytest.raises(ServiceUnavailableError):
        await stored.load()
    known = find(stored, "greet")
    assert stored.catalogue.held(known, 1) is not None


async def test_before_the_first_read_prompts_are_unavailable_and_not_missing(stored: StoredPrompts) -> None:
    stored.put("greet", HI)
    with pytest.raises(ServiceUnavailableError) as refused:
        find(stored, "greet")
    assert (refused.value.code, refused.value.retry_after) == ("prompts_unavailable", 1)


async def test_a_version_that_is_not_held_is_a_503_while_the_database_is_away(stored: StoredPrompts) -> None:
    stored.put("greet", HI, HI, HELLO, production=3)
    await stored.load()
    stored.is_away = True
    with pytest.raises(ServiceUnavailableError):
        await stored.catalogue.read(find(stored, "greet"), 1)


async def test_a_version_is_read_once_for_all_who_wait_for_it(stored: StoredPrompts) -> None:
    stored.put("greet", HI, HI, HELLO, production=3)
    await stored.load()
    known, reads = find(stored, "greet"), stored.reads["contents"]
    found = await asyncio.gather(*(stored.catalogue.read(known, 1) for _ in range(20)))
    assert len({id(each) for each in found}) == 1
    assert stored.reads["contents"] == reads + 1


async def test_a_version_that_is_missing_is_asked_for_once(stored: StoredPrompts) -> None:
    id = stored.put("greet", HI, HI, HELLO, production=3)
    missing = stored.versions.pop((id, 1))
    await stored.load()
    reads = stored.reads["contents"]
    for _ in range(3):
        with pytest.raises(NotFoundError, match="has no version 1"):
            await stored.catalogue.read(find(stored, "greet"), 1)
    assert stored.reads["contents"] == reads + 1
    stored.versions[id, 1] = missing
    stored.touch(id)
    await stored.load()
    assert (await stored.catalogue.read(find(stored, "greet"), 1)).declaration.names == ("name",)


async def test_a_reader_that_hangs_up_leaves_the_read_to_the_others(stored: StoredPrompts) -> None:
    stored.put("greet", HI, HI, HELLO, production=3)
    await stored.load()
    known = find(stored, "greet")
    first, second = (asyncio.create_task(stored.catalogue.read(known, 1)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is stored.catalogue.held(known, 1)
    assert first.cancelled() or await asyncio.gather(first, return_exceptions=True)


async def test_contents_in_memory_are_bounded() -> None:
    stored = StoredPrompts(max_bytes=3 * OVERHEAD)
    for n in range(10):
        stored.put(f"p{n}", {"text": f"{n}"}, production=1)
    await stored.load()
    held = [n for n in range(10) if stored.catalogue.held(find(stored, f"p{n}"), 1) is not None]
    assert len(held) == 2
    assert (await stored.catalogue.read(find(stored, "p0"), 1)).text({}) == "0"


async def test_a_version_of_a_newer_platform_does_not_hide_the_others(
    stored: StoredPrompts, caplog: pytest.LogCaptureFixture
) -> None:
    id = stored.put("new", HI, production=1)
    stored.put("greet", HI, production=1)
    stored.versions[id, 1].content["surprise"] = 1
    await stored.load()
    assert stored.catalogue.held(find(stored, "greet"), 1) is not None
    assert "can't be used" in caplog.text


async def test_a_look_up_takes_microseconds_among_thousands(stored: StoredPrompts) -> None:
    for n in range(5_000):
        stored.put(f"p{n}", {"text": "x"}, production=1)
    await stored.load()
    started = time.process_time()
    for n in range(5_000):
        known = find(stored, f"p{n}")
        assert stored.catalogue.held(known, known.labels["production"].pick("user")) is not None
    assert (time.process_time() - started) / 5_000 < 500e-6  # 1 to 3 µs; ten times the promise, for a busy machine
