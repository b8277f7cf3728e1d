"""A compacted conversation is read by the platform that made it, for the same organisation, unchanged."""

import asyncio
import threading

import msgspec
import pytest

from quarterdeck.errors import BadRequestError
from quarterdeck.resources.responses import sealed as sealed_module
from quarterdeck.resources.responses.sealed import Sealed

ITEMS = [{"id": "msg_1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "secret"}]}]


class Secret:
    def __init__(self, value: bytes = b"s" * 32) -> None:
        self._value = value

    async def read(self) -> bytes:
        return self._value


async def test_items_are_read_as_they_were_sealed_and_not_visible_in_between() -> None:
    content = await Sealed(Secret()).seal("acme", ITEMS)
    assert "secret" not in content
    assert await Sealed(Secret()).open("acme", content, "input[0]") == (ITEMS, len(msgspec.json.encode(ITEMS)))
    assert content != await Sealed(Secret()).seal("acme", ITEMS)


async def test_another_organisation_another_platform_and_a_changed_content_are_refused() -> None:
    content = await Sealed(Secret()).seal("acme", ITEMS)
    changed = content[:-6] + ("AAAA" if content[-6:-2] != "AAAA" else "BBBB") + content[-2:]
    for org, secret, given in (
        ("other", Secret(), content),
        ("acme", Secret(b"t" * 32), content),
        ("acme", Secret(), changed),
        ("acme", Secret(), ""),
        ("acme", Secret(), "ü"),
        ("acme", Secret(), "not base64!"),
    ):
        with pytest.raises(BadRequestError) as refused:
            await Sealed(secret).open(org, given, "input[3]")
        assert (refused.value.code, refused.value.param) == ("invalid_encrypted_content", "input[3].encrypted_content")


async def test_large_conversations_do_not_hold_up_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compression waits until the loop has run something else."""
    has_run = threading.Event()
    compress = sealed_module.zlib.compress

    def slow(data: bytes) -> bytes:
        assert has_run.wait(60)
        return compress(data)

    monkeypatch.setattr(sealed_module.zlib, "compress", slow)
    sealing = asyncio.ensure_future(Sealed(Secret()).seal("acme", ITEMS))
    await asyncio.sleep(0)
    has_run.set()
    assert (await Sealed(Secret()).open("acme", await sealing, "input[0]"))[0] == ITEMS


async def test_a_content_that_becomes_larger_than_it_may_is_refused() -> None:
    sealed = Sealed(Secret())
    content, size = await sealed.seal("acme", ITEMS), len(msgspec.json.encode(ITEMS))
    assert (await sealed.open("acme", content, "input[0]", most=size))[0] == ITEMS
    with pytest.raises(BadRequestError) as refused:
        await sealed.open("acme", content, "input[0]", most=size - 1)
    assert refused.value.code == "context_too_large"


async def test_reasoning_is_read_for_its_organisation_and_not_as_a_compaction() -> None:
    sealed = Sealed(Secret())
    seal = await sealed.reasoning_sealer("acme")
    content = seal("I think \ud83d")
    assert await sealed.open_reasoning("acme", content, "input[0]", most=100) is not None
    assert await sealed.open_reasoning("other", content, "input[0]", most=100) is None
    assert await sealed.open_reasoning("acme", "not base64!", "input[0]", most=100) is None
    assert await sealed.open_reasoning("acme", await sealed.seal("acme", ITEMS), "input[0]", most=10_000) is None
    with pytest.raises(BadRequestError) as refused:
        await sealed.open("acme", content, "input[0]")
    assert refused.value.code == "invalid_encrypted_content"
    with pytest.raises(BadRequestError) as refused:
        await sealed.open_reasoning("acme", seal("x" * 1000), "input[0]", most=100)
    assert refused.value.code == "context_too_large"
