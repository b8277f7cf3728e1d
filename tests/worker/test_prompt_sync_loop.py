"""Prompts are kept equal with a Langfuse project through its own SDK, and what differs on both sides is shown."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.records import a_record
from tests.telemetry.otlp_sink import spans_of
from tests.worker.bench import ORG, Bench
from tests.worker.langfuse_server import PROJECT, LangfuseServer

from quarterdeck.net.redis import Redis
from quarterdeck.resources.prompts.changes import PromptAnnouncer
from quarterdeck.settings.langfuse import LangfuseConfig
from quarterdeck.settings.prompts import LabelSpec, PromptSpec
from quarterdeck.store.leases import LeaseStore
from quarterdeck.store.prompt_links import LinkRow, PromptLinkStore
from quarterdeck.store.prompts import PromptStore
from quarterdeck.telemetry.traces.projection import TraceProjection
from quarterdeck.telemetry.traces.prompt_numbers import PromptNumbers
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker import langfuse_prompts, prompt_sync_loop
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.langfuse_prompts import LangfusePrompts
from quarterdeck.worker.prompt_sync_loop import LEASE_SECONDS, PromptSyncLoop

SECRET = "sk-lf-2"
MINE: dict[str, Any] = {"org": ORG, "author": "key_1"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Synced:
    """Prompts here, and a worker that synchronises them."""

    def __init__(self, bench: Bench, redis: Redis, server: LangfuseServer, clock: Clock, mode: str) -> None:
        self.server = server
        self.clock = clock
        self.config = LangfuseConfig(prompts=mode)
        self.store = PromptStore(bench.database)
        self.links = PromptLinkStore(bench.database)
        self.metrics = WorkerMetrics()
        self.numbers = PromptNumbers()
        self.condition = Condition("prompts at Langfuse")
        self._bench = bench
        self._redis = redis
        self.loop = self.worker("worker_a")

    def worker(self, name: str, secret: str = SECRET) -> PromptSyncLoop:
        return PromptSyncLoop(
            lambda: LangfusePrompts(self.server.url, "pk-lf-1", secret),
            self.store,
            self.links,
            LeaseStore(self._bench.database, name, wall=self.clock),
            PromptAnnouncer(self._redis),
            self.numbers,
            lambda: self.config,
            self.condition,
            self.metrics,
            clock=self.clock,
            wall=self.clock,
        )

    async def turn(self, loop: PromptSyncLoop | None = None) -> None:
        """A turn, a minute later."""
        self.clock.now += 61
        await (loop or self.loop).turn()

    async def texts(self, name: str) -> dict[int, Any]:
        found = await self.store.versions(name, org=ORG, limit=100)
        return {row.version: row.content.get("text") for row in reversed(found.rows)}

    async def labels(self, name: str) -> dict[str, Any]:
        id = (await self.store.retrieve(name, org=ORG)).id
        found = (await self.store.labels([id])).get(id, ())
        return {each.label: each.spec.version for each in found}

    async def link(self, name: str) -> LinkRow:
        rows, _ = await self.links.page(org=ORG, name=name, limit=1)
        return rows[0]

    async def conflicts(self, name: str) -> list[tuple[str, str]]:
        return [(each["kind"], each["subject"]) for each in (await self.link(name)).conflicts]

    async def keep(self, name: str, side: Any) -> None:
        await self.links.decide((await self.link(name)).id, side, org=ORG)
        await self.loop.turn()
        assert self.condition.reason == ""


@pytest.fixture
def server() -> Iterator[LangfuseServer]:
    with LangfuseServer() as server:
        yield server


@pytest.fixture
async def both(bench: Bench, redis: Redis, server: LangfuseServer) -> AsyncIterator[Synced]:
    synced = Synced(bench, redis, server, Clock(), "both")
    yield synced
    await synced.loop._close()


async def test_a_prompt_of_langfuse_is_taken_with_versions_labels_and_messages(both: Synced) -> None:
    both.server.create("support/greet", "Hello {{ name }}", ("production",), {"model": "m", "temperature": 0.2})
    text = "Hi {{name}} {% not jinja %}"
    both.server.create("support/greet", text, ("staging",), commitMessage="shorter", tags=["a"])
    await both.turn()
    assert both.condition.reason == ""
    assert await both.texts("support/greet") == {1: "Hello {{ name }}", 2: "Hi {{name}} {{ '{%' }} not jinja %}"}
    assert await both.labels("support/greet") == {"production": 1, "staging": 2}
    first = await both.store.version("support/greet", 1, org=ORG)
    assert (first.content["model"], first.content["parameters"]) == ("m", {"temperature": 0.2})
    second = await both.store.version("support/greet", 2, org=ORG)
    assert (second.message, second.author) == ("shorter", "langfuse")
    link = await both.link("support/greet")
    assert (link.origin, link.tags, link.project, link.conflicts) == ("theirs", ["a"], PROJECT, [])
    assert both.server.writes == []


async def test_a_prompt_of_ours_is_given_with_versions_labels_and_messages(both: Synced) -> None:
    spec = PromptSpec.model_validate(
        {
            "messages": [
                {"role": "system", "content": "You are {{ tone }}."},
                {"placeholder": "history"},
                {"role": "user", "content": "{{question}}"},
            ],
            "examples": [{"input": "1+1", "output": "2"}],
            "variables": {"tone": {"default": "kind"}, "history": {"type": "messages", "default": []}},
            "model": "m",
            "parameters": {"temperature": 1.0, "max_tokens": 5},
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "response_format": {"type": "json_object"},
        }
    )
    await both.store.create("a", spec, **MINE, message="first", labels=["production"])
    await both.turn()
    assert both.condition.reason == ""
    (version,) = both.server.prompts["a"]
    assert version["prompt"] == [
        {"type": "chatmessage", "role": "system", "content": "You are {{ tone }}."},
        {"type": "chatmessage", "role": "user", "content": "1+1"},
        {"type": "chatmessage", "role": "assistant", "content": "2"},
        {"type": "placeholder", "name": "history"},
        {"type": "chatmessage", "role": "user", "content": "{{question}}"},
    ]
    assert (version["config"]["model"], version["config"]["temperature"]) == ("m", 1)
    assert version["config"]["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert version["config"]["quarterdeck"]["variables"]["tone"] == {"default": "kind"}
    assert (version["commitMessage"], both.server.labels("a")) == ("first", {"production": 1})
    assert (await both.link("a")).origin == "ours"


async def test_a_second_turn_changes_nothing(both: Synced) -> None:
    both.server.create("theirs", "1", ("production",))
    await both.store.create("ours", PromptSpec(text="2"), **MINE, labels=["production"])
    for _ in range(3):
        await both.turn()
    writes, revisions = list(both.server.writes), await both.store.revisions()
    both.server.calls.clear()
    await both.turn()
    assert (both.server.writes, await both.store.revisions()) == ([], revisions)
    assert both.server.calls == ["GET /api/public/v2/prompts"]
    assert len(writes) == 2


async def test_changes_follow_the_side_where_a_prompt_was_created(both: Synced) -> None:
    both.server.create("theirs", "t1", ("production",))
    await both.store.create("ours", PromptSpec(text="o1"), **MINE, labels=["production"])
    await both.turn()
    both.server.create("theirs", "t2", ("production", "staging"))
    await both.store.add_version("ours", PromptSpec(text="o2"), **MINE, labels=["production"])
    await both.turn()
    assert await both.labels("theirs") == {"production": 2, "staging": 2}
    assert (both.server.texts("ours"), both.server.labels("ours")) == ({1: "o1", 2: "o2"}, {"production": 2})
    both.server.unlabel("theirs", "staging")
    await both.turn()
    assert await both.labels("theirs") == {"production": 2}


async def test_numbers_differ_and_labels_find_their_versions(both: Synced) -> None:
    both.server.create("p", "1")
    both.server.create("p", "2", ("production",))
    both.server.create("p", "3")
    both.server.delete_version("p", 1)
    await both.turn()
    assert await both.texts("p") == {1: "2", 2: "3"}
    assert await both.labels("p") == {"production": 1}
    both.server.label("p", 3, "production")
    await both.turn()
    assert await both.labels("p") == {"production": 2}


async def test_a_label_moved_on_both_sides_is_a_conflict_until_one_is_kept(both: Synced) -> None:
    for text in "123":
        both.server.create("p", text)
    both.server.label("p", 1, "production")
    await both.turn()
    both.server.label("p", 2, "production")
    await both.store.set_label("p", "production", LabelSpec(version=3), **MINE)
    for _ in range(3):
        await both.turn()
    assert await both.conflicts("p") == [("label", "production")]
    assert (await both.labels("p"), both.server.labels("p")) == ({"production": 3}, {"production": 2})
    events = [each for each in (await both.store.events("p", org=ORG, limit=100)).rows if each.kind == "sync.conflict"]
    assert [(each.label, each.author) for each in events] == [("production", "langfuse")]
    assert "version 3 here and is at version 2 at Langfuse" in events[0].reason
    assert both.metrics.prompt_sync_conflicts.values == {(): 1}
    await both.keep("p", "ours")
    assert (both.server.labels("p"), await both.conflicts("p")) == ({"production": 3}, [])
    both.server.label("p", 1, "production")
    await both.turn()
    assert await both.labels("p") == {"production": 1}  # its source is Langfuse still


async def test_what_is_changed_on_the_other_side_is_not_overwritten(both: Synced) -> None:
    await both.store.create("p", PromptSpec(text="1"), **MINE, labels=["production"])
    await both.turn()
    both.server.create("p", "theirs", ("production",))
    await both.turn()
    assert await both.conflicts("p") == [("version", "theirs 2"), ("label", "production")]
    assert (await both.labels("p"), both.server.labels("p")) == ({"production": 1}, {"production": 2})
    await both.keep("p", "theirs")
    assert (await both.texts("p"), await both.labels("p")) == ({1: "1", 2: "theirs"}, {"production": 2})
    await both.turn()
    assert await both.conflicts("p") == []


async def test_a_version_that_is_not_kept_stays_on_its_side(both: Synced) -> None:
    await both.store.create("p", PromptSpec(text="1"), **MINE, labels=["production"])
    await both.turn()
    both.server.create("p", "theirs")
    await both.turn()
    await both.keep("p", "ours")
    await both.turn()
    assert (await both.texts("p"), both.server.texts("p")) == ({1: "1"}, {1: "1", 2: "theirs"})
    assert await both.conflicts("p") == []
    await both.store.add_version("p", PromptSpec(text="2"), **MINE)
    await both.turn()
    assert both.server.texts("p") == {1: "1", 2: "theirs", 3: "2"}


@pytest.mark.parametrize(("side", "label"), [("ours", {"production": 2}), ("theirs", {"production": 1})])
async def test_a_name_that_both_sides_have_is_a_conflict(both: Synced, side: str, label: dict[str, int]) -> None:
    both.server.create("p", "theirs", ("production",))
    await both.store.create("p", PromptSpec(text="ours"), **MINE, labels=["production"])
    await both.turn()
    assert await both.conflicts("p") == [("name", "")]
    assert both.server.writes == []
    assert await both.texts("p") == {1: "ours"}
    await both.keep("p", side)
    assert (await both.link("p")).origin == side
    assert await both.conflicts("p") == []
    if side == "ours":
        assert (both.server.texts("p"), both.server.labels("p")) == ({1: "theirs", 2: "ours"}, label)
    else:
        assert (await both.texts("p"), await both.labels("p")) == ({1: "ours", 2: "theirs"}, {"production": 2})


async def test_equal_prompts_of_both_sides_are_one(both: Synced) -> None:
    both.server.create("p", "same {{x}}", ("production",))
    await both.store.create("p", PromptSpec(text="same {{x}}"), **MINE, labels=["production"])
    await both.turn()
    link = await both.link("p")
    assert (link.origin, link.conflicts, both.server.writes) == ("ours", [], [])


async def test_a_creation_whose_reply_is_lost_is_not_repeated(both: Synced) -> None:
    await both.store.create("p", PromptSpec(text="1"), **MINE, labels=["production"])
    await both.store.add_version("p", PromptSpec(text="2"), **MINE)
    for _ in range(3):
        both.server.lose_replies = 1
        await both.turn()
        assert both.condition.reason.startswith("HTTP 502")
        both.clock.now += 3600
    await both.turn()
    assert both.condition.reason == ""
    assert (both.server.texts("p"), both.server.labels("p")) == ({1: "1", 2: "2"}, {"production": 1})


async def test_a_worker_that_dies_after_any_step_leaves_no_duplicate(
    both: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("t1", "t2"):
        both.server.create("theirs", text, ("production",))
    await both.store.create("ours", PromptSpec(text="o1"), **MINE, labels=["production"])
    await both.store.add_version("ours", PromptSpec(text="o2"), **MINE)
    writes = 0

    class Killed(BaseException): ...

    for method in ("save", "pair", "create"):
        real = getattr(PromptLinkStore, method)

        async def dying(self: Any, *args: Any, real: Any = real, **kwargs: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes > 1:
                raise Killed
            return await real(self, *args, **kwargs)

        monkeypatch.setattr(PromptLinkStore, method, dying)
    turns = 0
    while True:
        writes = 0
        turns += 1
        try:
            await both.turn()
        except Killed:
            continue
        break
    assert turns > 10
    assert (both.server.texts("ours"), await both.texts("theirs")) == ({1: "o1", 2: "o2"}, {1: "t1", 2: "t2"})
    assert (both.server.labels("ours"), await both.labels("theirs")) == ({"production": 1}, {"production": 2})


async def test_one_of_two_workers_synchronises_and_the_other_takes_over(both: Synced) -> None:
    both.server.create("p", "1", ("production",))
    other = both.worker("worker_b")
    await both.turn()
    both.clock.now += LEASE_SECONDS / 2
    before = len(both.server.calls)
    await other.turn()
    assert both.server.calls[before:] == ["GET /api/public/projects"]
    both.clock.now += LEASE_SECONDS
    await other.turn()
    assert "GET /api/public/v2/prompts" in both.server.calls[before:]
    await other._close()


async def test_a_rate_limit_is_waited_for_as_long_as_it_says(both: Synced) -> None:
    both.server.create("p", "1", ("production",))
    await both.turn()
    both.server.create("p", "2", ("production",))
    both.server.status, both.server.headers = 429, {"retry-after": "300"}
    await both.turn()
    assert both.condition.reason.startswith("HTTP 429")
    both.server.status = 200
    await both.turn()
    assert await both.texts("p") == {1: "1"}
    both.clock.now += 300
    await both.turn()
    assert (await both.texts("p"), both.condition.reason) == ({1: "1", 2: "2"}, "")


async def test_an_outage_pauses_twice_as_long_each_time(both: Synced) -> None:
    both.server.status = 503
    calls = []
    for _ in range(120):
        both.clock.now += 5
        before = len(both.server.calls)
        await both.loop.turn()
        calls.append(len(both.server.calls) - before)
    assert [at for at, count in enumerate(calls) if count] == [0, 2, 6, 14, 30, 62]


async def test_a_decision_that_cannot_be_carried_out_waits_for_the_next_turn(both: Synced) -> None:
    both.server.create("bad name", "1")
    await both.turn()
    await both.links.decide((await both.link("bad name")).id, "theirs", org=ORG)
    before = len(both.server.calls)
    for _ in range(5):
        both.clock.now += 1
        await both.loop.turn()
    assert both.server.calls[before:] == ["GET /api/public/v2/prompts"]


async def test_without_the_extra_the_condition_names_it(both: Synced) -> None:
    def connect() -> LangfusePrompts:
        raise ModuleNotFoundError("No module named 'langfuse'")

    both.loop._connect = connect
    await both.turn()
    assert both.condition.reason == "the extra `langfuse` is not installed (No module named 'langfuse')"
    both.loop._connect = None
    await both.turn()
    assert both.condition.reason.startswith("LANGFUSE_BASE_URL, LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY")


async def test_wrong_keys_are_a_condition_and_lose_nothing(both: Synced) -> None:
    both.server.create("p", "1")
    wrong = both.worker("worker_c", "sk-wrong")
    await both.turn(wrong)
    assert both.condition.reason == "HTTP 401 Invalid credentials"
    await wrong._close()


async def test_what_cannot_be_mapped_is_a_stated_reason_and_stays_where_it_is(both: Synced) -> None:
    both.server.create("bad name", "1")
    both.server.create("refers", "@@@langfusePrompt:name=x|label=y@@@", ("production",))
    both.server.create("extra", "1", ("1st",), {"language": "en"})
    spec = PromptSpec(text="{% for x in y %}{{ x }}{% endfor %}", variables={"y": {"type": "array"}})
    await both.store.create("loops", spec, **MINE, labels=["production"])
    await both.turn()
    assert (await both.link("bad name")).notes[0].startswith("the name can't be used here")
    notes = {name: " / ".join((await both.link(name)).notes) for name in ("refers", "extra", "loops")}
    assert "version 1 at Langfuse can't be here: text: it includes another prompt" in notes["refers"]
    assert "config.language is not used here" in notes["extra"]
    assert "the label 1st can't be used here" in notes["extra"]
    assert (
        "version 1 here can't be at Langfuse: text: line 1: Langfuse has variables only, and this is a loop"
        in (notes["loops"])
    )
    assert both.server.writes == []
    assert both.condition.reason == ""


async def test_one_prompt_that_cannot_be_handled_does_not_stop_the_others(both: Synced) -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    both.server.create("a", "lone \ud800 surrogate", commitMessage="\ud800")
    both.server.create("b", "1", config={"response_format": {"deep": deep}})
    both.server.create("c", "1", ("production",))
    both.server.create("d" * 200, "1")
    await both.turn()
    await both.turn()
    assert await both.labels("c") == {"production": 1}
    assert both.server.writes == []
    assert "lone surrogate" in (await both.link("a")).notes[0]


async def test_a_type_that_changes_is_refused_by_langfuse_and_noted(both: Synced) -> None:
    await both.store.create("p", PromptSpec(text="1"), **MINE, labels=["production"])
    chat = PromptSpec.model_validate({"messages": [{"role": "user", "content": "2"}]})
    await both.store.add_version("p", chat, **MINE, labels=["production"])
    await both.turn()
    assert "different prompt type" in (await both.link("p")).notes[0]
    assert both.server.labels("p") == {}
    await both.store.add_version("p", PromptSpec(text="3"), **MINE, labels=["production"])
    await both.turn()
    assert (both.server.texts("p"), both.server.labels("p")) == ({1: "1", 2: "3"}, {"production": 2})


async def test_a_split_label_stays_at_langfuse_until_the_split_ends(both: Synced) -> None:
    await both.store.create("p", PromptSpec(text="1"), **MINE, labels=["production"])
    await both.store.add_version("p", PromptSpec(text="2"), **MINE)
    await both.turn()
    split = LabelSpec.model_validate({"split": [{"version": 1, "weight": 9}, {"version": 2}]})
    await both.store.set_label("p", "production", split, **MINE)
    await both.turn()
    assert both.server.labels("p") == {"production": 1}
    assert "split" in (await both.link("p")).notes[0]
    await both.store.set_label("p", "production", LabelSpec(version=2), **MINE)
    await both.turn()
    assert both.server.labels("p") == {"production": 2}


@pytest.mark.parametrize("side", ["ours", "theirs"])
async def test_a_deleted_prompt_is_not_deleted_on_the_other_side(both: Synced, side: str) -> None:
    both.server.create("p", "1", ("production",))
    await both.turn()
    if side == "ours":
        await both.store.delete("p", **MINE)
    else:
        both.server.prompts.clear()
    await both.turn()
    assert await both.conflicts("p") == [("deleted", "")]
    await both.keep("p", side)
    assert (await both.link("p")).is_detached
    other = "theirs" if side == "ours" else "ours"
    await both.keep("p", other)
    if side == "ours":
        assert (await both.texts("p"), await both.labels("p")) == ({2: "1"}, {"production": 2})
    else:
        assert (both.server.texts("p"), both.server.labels("p")) == ({1: "1"}, {"production": 1})


async def test_a_number_that_langfuse_uses_again_is_another_version(both: Synced) -> None:
    both.server.create("p", "1", ("production",))
    both.server.create("p", "2")
    await both.turn()
    both.server.delete_version("p", 2)
    both.server.create("p", "other", ("production",))
    await both.turn()
    assert (await both.texts("p"), await both.labels("p")) == ({1: "1", 2: "2", 3: "other"}, {"production": 3})


async def test_an_archived_prompt_is_not_changed(both: Synced) -> None:
    both.server.create("p", "1", ("production",))
    await both.turn()
    await both.store.update("p", **MINE, archived=True)
    both.server.create("p", "2", ("production",))
    await both.turn()
    assert await both.texts("p") == {1: "1"}
    assert any("archived" in note for note in (await both.link("p")).notes)
    await both.store.update("p", **MINE, archived=False)
    await both.turn()
    assert (await both.texts("p"), await both.labels("p")) == ({1: "1", 2: "2"}, {"production": 2})


async def test_a_generation_is_linked_to_langfuses_own_number_of_its_prompt(both: Synced) -> None:
    for text in "123":
        both.server.create("p", text)
    both.server.delete_version("p", 1)
    projection = TraceProjection(prompt_numbers=both.numbers)

    def linked(**fields: Any) -> tuple[str, int] | None:
        calls = [span.observation for span in spans_of(projection.encode(a_record(org=ORG, prompt="p", **fields)))]
        return next(each.prompt for each in calls if each.type == "GENERATION")

    assert linked(prompt_version="2") == ("p", 2)
    await both.turn()
    assert (linked(prompt_version="1"), linked(prompt_version="2")) == (("p", 2), ("p", 3))
    assert linked(prompt_version="3") is None
    both.config = LangfuseConfig()
    await both.turn()
    assert linked(prompt_version="2") == ("p", 2)


async def test_each_mode_has_its_source_on_each_database(
    any_bench: Bench, redis: Redis, server: LangfuseServer
) -> None:
    synced = Synced(any_bench, redis, server, Clock(), "off")
    server.create("theirs", "1", ("production",))
    await synced.store.create("ours", PromptSpec(text="1"), **MINE, labels=["production"])
    await synced.turn()
    assert (server.calls, list(server.prompts)) == ([], ["theirs"])
    synced.config = LangfuseConfig(prompts="push")
    await synced.turn()
    assert (sorted(server.prompts), len(await synced.store.revisions())) == (["ours", "theirs"], 1)
    synced.config = LangfuseConfig(prompts="pull")
    await synced.turn()
    assert len(await synced.store.revisions()) == 2
    await synced.store.add_version("ours", PromptSpec(text="2"), **MINE)
    await synced.turn()
    assert (server.texts("ours"), await synced.conflicts("ours")) == ({1: "1"}, [("version", "ours 2")])
    await synced.loop._close()


async def test_more_prompts_than_a_page_are_all_taken(both: Synced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langfuse_prompts, "PAGE", 2)
    monkeypatch.setattr(prompt_sync_loop, "PAGE", 2)
    for number in range(5):
        both.server.create(f"p{number}", str(number))
    await both.turn()
    await both.turn()
    assert len(await both.store.revisions()) == 5
    assert both.metrics.prompt_sync_linked.values == {(): 5}
