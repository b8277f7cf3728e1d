"""What a follower knows is what the API server has, whatever happens between; one that fails takes nothing away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kube.api_server import ApiServer, Fault, Object, status
from tests.net.upstream import until

from quarterdeck.kube import api as api_module
from quarterdeck.kube import follower as follower_module
from quarterdeck.kube.api import KubeApi, KubeError, Metadata
from quarterdeck.kube.follower import ObjectFollower

PATH = "/api/v1/namespaces/ns/things"


class Thing(msgspec.Struct, frozen=True):
    metadata: Metadata
    value: int = 0


def thing(name: str, value: int = 0) -> Object:
    return {"metadata": {"name": name, "managedFields": [{"f:x": {}}]}, "value": value}


class Following:
    def __init__(self, server: ApiServer, *, watch_seconds: float = 30.0) -> None:
        self.server = server
        self.api = KubeApi(server.access(), watch_seconds=watch_seconds)
        self.changes = 0
        self.pauses: list[float] = []
        self.follower = ObjectFollower(
            self.api, PATH, Thing, what="things", on_change=self._count, random=self._half, pause=0.001
        )
        self.task = asyncio.get_running_loop().create_task(self.follower.run())

    def _count(self) -> None:
        self.changes += 1

    def _half(self) -> float:
        self.pauses.append(self.follower._pause)
        return 0.5

    @property
    def known(self) -> dict[str, int]:
        return {name: each.value for name, each in self.follower.objects.items()}

    async def knows(self, **values: int) -> None:
        await until(lambda: self.known == values)

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        await self.api.close()


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as made:
        yield made


@pytest.fixture
async def following(server: ApiServer) -> AsyncIterator[Following]:
    await server.put(PATH, thing("a", 1))
    made = Following(server)
    await made.knows(a=1)
    yield made
    await made.stop()


async def test_changes_are_followed(server: ApiServer, following: Following) -> None:
    await server.put(PATH, thing("b", 2))
    await server.put(PATH, thing("a", 3))
    await following.knows(a=3, b=2)
    await server.delete(PATH, "a")
    await following.knows(b=2)


async def test_a_list_has_pages(server: ApiServer) -> None:
    server.page = 2
    for number in range(5):
        await server.put(PATH, thing(f"t{number}", number))
    following = Following(server)
    await following.knows(**{f"t{number}": number for number in range(5)})
    await following.stop()


async def test_a_watch_that_was_cut_continues_after_its_last_event(server: ApiServer, following: Following) -> None:
    await server.put(PATH, thing("b"))
    await following.knows(a=1, b=0)
    await until(lambda: len(server.requests) >= 2)
    asked = len(server.requests)
    server.cut()
    await server.put(PATH, thing("c"))
    await following.knows(a=1, b=0, c=0)
    assert all(query.get("watch") for _, query in server.requests[asked:]), "nothing had to be listed again"


async def test_a_bookmark_moves_the_watch_forward(server: ApiServer, following: Following) -> None:
    server.version = 500
    await server.emit(PATH, "BOOKMARK", {"metadata": {"name": "", "resourceVersion": "500"}})
    await until(lambda: following.follower._version == "500")
    server.oldest = 450
    server.cut()
    asked = len(server.requests)
    await until(lambda: len(server.requests) > asked)
    assert server.requests[asked][1]["resourceVersion"] == "500"
    assert following.known == {"a": 1}


async def test_a_version_that_is_too_old_leads_to_a_new_list(server: ApiServer, following: Following) -> None:
    server.cut()
    server.objects[PATH] = {"b": thing("b", 2)}  # the events of it are compacted away
    server.version = server.oldest = 900
    await following.knows(b=2)


async def test_what_is_known_stays_while_the_server_is_away(server: ApiServer, following: Following) -> None:
    await server.stop()
    await until(lambda: following.follower.error is not None)
    assert following.known == {"a": 1}
    server.objects[PATH]["a"]["value"] = 2
    server.oldest = server.version = server.version + 1
    await server.start()
    await following.knows(a=2)
    await until(lambda: following.follower.error is None)


TRUNCATED = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"metadata": {"res'
HALF_EVENT = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    b'14\r\n{"type": "ADDED", "o\r\n'
)
FAULTS = {
    "truncated": Fault(TRUNCATED),
    "a status of 429": Fault.of(429, msgspec.json.encode(status(429, "slow down"))),
    "a status of 500": Fault.of(500, b"<html>"),
    "a status of 503 with Retry-After": Fault.of(503, b"", "retry-after: 0\r\n"),
    "a status of 401": Fault.of(401, msgspec.json.encode(status(401, "Unauthorized"))),
    "no JSON": Fault.of(200, b"<html>it works</html>"),
    "something else": Fault.of(200, b'{"metadata": 7}'),
    "no HTTP": Fault(b"SSH-2.0\r\n\r\n"),
    "silence": Fault(b""),
    "half an event": Fault(HALF_EVENT),
    "an empty body": Fault.of(200, b""),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_after_a_bad_answer_the_follower_goes_on(server: ApiServer, fault: Fault) -> None:
    await server.put(PATH, thing("a", 1))
    server.faults.extend([fault, fault])
    following = Following(server)
    await following.knows(a=1)
    server.faults.append(fault)
    server.cut()
    await server.put(PATH, thing("b", 2))
    await following.knows(a=1, b=2)
    await following.stop()


async def test_an_error_event_ends_the_watch_and_not_the_follower(server: ApiServer, following: Following) -> None:
    await server.emit(PATH, "ERROR", {"metadata": {"name": ""}, **status(500, "etcd is gone")})
    await until(lambda: following.follower.error is not None)
    assert following.known == {"a": 1}


async def test_an_event_without_an_end_is_refused(
    server: ApiServer, following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "MAX_LINE_BYTES", 10_000)
    await server.emit(PATH, "MODIFIED", {"metadata": {"name": "a", "annotations": {"x": "y" * 50_000}}})
    await until(lambda: following.follower.error is not None)
    assert following.known == {"a": 1}


async def test_a_server_that_ends_each_watch_at_once_is_not_asked_in_a_tight_loop(server: ApiServer) -> None:
    await server.put(PATH, thing("a", 1))
    empty = Fault.of(200, b"\n")
    server.faults.append(Fault.of(200, b'{"metadata": {"resourceVersion": "1"}, "items": []}'))
    server.faults.extend([empty] * 7)
    following = Following(server)
    await following.knows(a=1)
    assert following.pauses[1:] == [0.001 * 2**number for number in range(7)]
    await following.stop()


async def test_a_list_that_has_no_end_is_refused(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "MAX_OBJECTS", 3)
    for number in range(5):
        await server.put(PATH, thing(f"t{number}"))
    api = KubeApi(server.access())
    with pytest.raises(KubeError, match="more than 3 objects"):
        await api.list(PATH, Thing)
    await api.close()


async def test_a_silent_server_is_left_after_the_watch_time(server: ApiServer) -> None:
    await server.put(PATH, thing("a", 1))
    following = Following(server, watch_seconds=1.0)
    await following.knows(a=1)
    await until(lambda: len([1 for _, query in server.requests if query.get("watch")]) >= 2)
    await following.stop()


async def test_the_token_is_read_for_each_request(server: ApiServer, tmp_path: Any) -> None:
    import dataclasses

    from quarterdeck.kube.access import Source

    (tmp_path / "token").write_text("one")
    access = dataclasses.replace(server.access(), token=Source(tmp_path / "token"))
    api = KubeApi(access)
    await api.list(PATH, Thing)
    (tmp_path / "token").write_text("two")
    await api.list(PATH, Thing)
    (tmp_path / "token").unlink()
    with pytest.raises(KubeError, match="credentials"):
        await api.list(PATH, Thing)
    assert server.tokens == ["Bearer one", "Bearer two"]
    await api.close()


async def test_a_watch_that_is_refused_again_and_again_leads_to_a_new_list(
    server: ApiServer, following: Following
) -> None:
    """Such as "Too large resource version", after etcd was restored."""
    too_large = Fault.of(504, msgspec.json.encode(status(504, "Too large resource version: 900, current: 100")))
    server.faults.extend([too_large] * 5)
    server.objects[PATH] = {"b": thing("b", 2)}
    server.cut()
    await following.knows(b=2)


async def test_objects_are_listed_again_from_time_to_time(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "RELIST_SECONDS", 0.0)
    await server.put(PATH, thing("a", 1))
    following = Following(server, watch_seconds=1.0)
    await following.knows(a=1)
    server.objects[PATH] = {"b": thing("b", 2)}  # no watch has brought it
    await following.knows(b=2)
    await following.stop()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 9)),
        st.tuples(st.just("delete"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.sampled_from(["cut", "compact", "restart", "pause"]), st.just(""), st.just(0)),
        st.tuples(st.just("fault"), st.sampled_from(sorted(FAULTS)), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(OPERATIONS)
async def test_whatever_happens_the_follower_ends_with_what_the_server_has(operations: list[Any]) -> None:
    async with ApiServer(page=2) as server:
        following = Following(server)
        for name, what, value in operations:
            if name == "put":
                await server.put(PATH, thing(what, value))
            elif name == "delete" and what in server.objects.get(PATH, {}):
                await server.delete(PATH, what)
            elif name == "cut":
                server.cut()
            elif name == "compact":  # further watches must begin now
                server.oldest = server.version
            elif name == "restart":
                await server.stop()
                await server.start()
            elif name == "fault":
                server.faults.append(FAULTS[what])
            else:
                await asyncio.sleep(0.002)
        server.faults.clear()
        await server.put(PATH, thing("last", 1))
        await following.knows(**{each: found["value"] for each, found in server.objects[PATH].items()})
        await following.stop()
