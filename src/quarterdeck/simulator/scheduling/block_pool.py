"""The KV cache: a pool of blocks, and which prompts' beginnings lie in it.

A full block is known by the hash of its tokens and of the block before it, so equal beginnings share blocks. A block
that nobody uses stays until room is needed; the longest unused goes first, a chain's end before its beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

Prompt = tuple[list[int], int]
"""A prompt's block hashes, and how many tokens it has."""


@dataclass(slots=True, eq=False)
class Lease:
    """The blocks of one running request: shared (known by hash), and its own."""

    shared: list[int] = field(default_factory=list)
    private: int = 0
    cached_tokens: int = 0


def chain(pieces: Sequence[str], block_size: int, salt: object = None) -> list[int]:
    """The hashes of the full blocks."""
    hashes: list[int] = []
    parent = hash(salt)
    for end in range(block_size, len(pieces) + 1, block_size):
        parent = hash((parent, *pieces[end - block_size : end]))
        hashes.append(parent)
    return hashes


class Blocks:
    def __init__(self, total: int, block_size: int) -> None:
        self.total = total
        self.block_size = block_size
        self._users: dict[int, int] = {}
        self._idle: dict[int, None] = {}  # in the order in which they go
        self._private = 0

    @property
    def used(self) -> int:
        return len(self._users) + self._private

    @property
    def usage(self) -> float:
        return min(self.used / self.total, 1.0)

    def known(self, hashes: Sequence[int]) -> int:
        """How many leading blocks lie in the cache."""
        count = 0
        for each in hashes:
            if each not in self._users and each not in self._idle:
                break
            count += 1
        return count

    def open(self, prompts: Sequence[Prompt], private: int, *, force: bool = False) -> Lease | None:
        """Take the blocks of a request's prompts, and so many of its own; None where there is no room now.

        The last token is always computed, so a prompt that is wholly known still counts its last block as uncached.
        """
        hits = sum(min(self.known(hashes), (tokens - 1) // self.block_size) for hashes, tokens in prompts if tokens)
        hashes = list(dict.fromkeys(each for chained, _ in prompts for each in chained))
        fresh = sum(1 for each in hashes if each not in self._users)
        if self.used + fresh + private > self.total and not force:
            return None
        for each in hashes:
            self._idle.pop(each, None)
            self._users[each] = self._users.get(each, 0) + 1
        self._private += private
        self._evict()
        return Lease(hashes, private, hits * self.block_size)

    def grow(self, lease: Lease, private: int, *, force: bool = False) -> bool:
        """Give the request so many blocks of its own; False where there is no room."""
        more = private - lease.private
        if more <= 0:
            return True
        if self.used + more > self.total and not force:
            return False
        lease.private = private
        self._private += more
        self._evict()
        return True

    def close(self, lease: Lease, written: Sequence[int] = ()) -> None:
        """Give the blocks back; `written` are the hashes of the blocks that the answer filled."""
        self._private -= lease.private
        for each in reversed(written):
            if each not in self._users:
                self._rest(each)
        for each in reversed(lease.shared):
            left = self._users[each] - 1
            if left:
                self._users[each] = left
            else:
                del self._users[each]
                self._rest(each)
        lease.shared, lease.private = [], 0
        self._evict()

    def clear(self) -> None:
        self._idle.clear()

    def _rest(self, each: int) -> None:
        self._idle.pop(each, None)
        self._idle[each] = None

    def _evict(self) -> None:
        while self._idle and self.used + len(self._idle) > self.total:
            del self._idle[next(iter(self._idle))]
