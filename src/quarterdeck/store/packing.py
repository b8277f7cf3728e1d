"""Compressed JSON in columns of bytes."""

import asyncio
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

_LEVEL = 1
"""Texts shrink to a third at a fifth of the default level's time."""
LARGE_BYTES = 64 * 1024
"""JSON that is larger is compressed in a thread, as it would hold up the event loop for milliseconds."""


class Packed(msgspec.Struct, frozen=True):
    body: bytes
    bytes: int
    """Of the JSON."""


async def pack_all(values: Sequence[Any]) -> list[Packed]:
    encoded = [msgspec.json.encode(value) for value in values]
    if sum(map(len, encoded)) > LARGE_BYTES:
        return await asyncio.to_thread(_packed, encoded)
    return _packed(encoded)


async def pack(value: Any) -> bytes:
    return (await pack_all([value]))[0].body


async def unpack_all(bodies: Sequence[bytes]) -> list[Any]:
    if sum(map(len, bodies)) > LARGE_BYTES // 4:
        return await asyncio.to_thread(_unpacked, bodies)
    return _unpacked(bodies)


async def unpack(body: bytes) -> Any:
    return (await unpack_all([body]))[0]


def _packed(encoded: Sequence[bytes]) -> list[Packed]:
    return [Packed(zlib.compress(each, _LEVEL), len(each)) for each in encoded]


def _unpacked(bodies: Sequence[bytes]) -> list[Any]:
    return [msgspec.json.decode(zlib.decompress(body)) for body in bodies]
