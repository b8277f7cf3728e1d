"""Compacted conversations and reasoning as clients keep them: encrypted, so that only the platform reads them, for one
organisation.

AES-256-GCM with a key made of a secret of the platform; the organisation is authenticated with it. What was made for
one organisation is refused for another, and so is what was changed.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import zlib
from collections.abc import Callable, Sequence
from os import urandom
from typing import Protocol

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.resources.responses.items import Item

_NONCE = 12
COMPACTION, REASONING = b"compaction", b"reasoning"
"""Each has a key of its own: one is never read as the other."""
MAX_BYTES = 32 * 1024 * 1024
"""Of what is decompressed, all of one input together: a few bytes may become a
thousand times as many."""


class Secret(Protocol):
    async def read(self) -> bytes:
        """Raises ServiceUnavailableError."""
        ...


class Sealed:
    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    async def seal(self, org: str, items: Sequence[Item]) -> str:
        """Raises ServiceUnavailableError."""
        key = _key(await self._secret.read(), COMPACTION)
        return await asyncio.to_thread(_sealed, key, org, msgspec.json.encode(items))

    async def open(self, org: str, content: str, where: str, *, most: int = MAX_BYTES) -> tuple[list[Item], int]:
        """The items, and their size. `most`: the largest, in bytes. Raises BadRequestError, and
        ServiceUnavailableError."""
        key = _key(await self._secret.read(), COMPACTION)
        items = await asyncio.to_thread(_opened, key, org, content, where, most)
        found: list[Item] = msgspec.json.decode(items)
        return found, len(items)

    async def reasoning_sealer(self, org: str) -> Callable[[str], str]:
        """What seals the reasoning of an answer as it comes, without waiting. Raises ServiceUnavailableError."""
        key = _key(await self._secret.read(), REASONING)
        await asyncio.to_thread(_sealed, key, org, b"")  # imports what it needs
        return lambda text: _sealed(key, org, text.encode("utf-8", "surrogatepass"))

    async def open_reasoning(self, org: str, content: str, where: str, *, most: int) -> str | None:
        """The text. None: it was not made here for this organisation, such as another provider's. Raises
        BadRequestError for one larger than `most`, and ServiceUnavailableError."""
        key = _key(await self._secret.read(), REASONING)
        try:
            found = await asyncio.to_thread(_opened, key, org, content, where, most)
        except BadRequestError as error:
            if error.code == "context_too_large":
                raise
            return None
        return found.decode("utf-8", "replace")


def _sealed(key: bytes, org: str, items: bytes) -> str:
    """In a thread, as `_opened`: a long conversation takes a second to compress, and a few bytes may become many."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # takes 30 ms, and few need it

    nonce = urandom(_NONCE)
    sealed = AESGCM(key).encrypt(nonce, zlib.compress(items), org.encode())
    return base64.urlsafe_b64encode(nonce + sealed).decode()


def _opened(key: bytes, org: str, content: str, where: str, most: int) -> bytes:
    """Raises BadRequestError."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        whole = base64.urlsafe_b64decode(content.encode("ascii"))
        data = AESGCM(key).decrypt(whole[:_NONCE], whole[_NONCE:], org.encode())
    except (InvalidTag, binascii.Error, UnicodeEncodeError, ValueError):
        raise BadRequestError(
            "The encrypted content could not be verified: it was not made by this platform for this organisation, "
            "or was changed.",
            param=f"{where}.encrypted_content",
            code="invalid_encrypted_content",
        ) from None
    items = zlib.decompressobj().decompress(data, most + 1)
    if len(items) > most:
        raise BadRequestError(
            f"The encrypted contents of the input are larger than {MAX_BYTES // 1024**2} MiB together.",
            param=f"{where}.encrypted_content",
            code="context_too_large",
        )
    return items


def _key(secret: bytes, purpose: bytes) -> bytes:
    return hmac.new(secret, purpose, hashlib.sha256).digest()
