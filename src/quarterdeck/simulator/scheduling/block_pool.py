"""The KV cache: a pool of blocks with prefix caching.

A full block is identified by the hash of its tokens and of the block before it, so equal prefixes share blocks. An
unused block stays cached until room is needed; the least recently used is evicted first, a prefix from its end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

HashedPrompt = tuple[list[int], int]
"""A prompt's block hashes and its number of tokens."""


@dataclass(slots=True, eq=False)
class BlockAllocation:
    """The blocks of one running request: shared ones, by hash, and the number of its private ones."""

    shared: list[int] = field(default_factory=list)
    private: int = 0
    cached_tokens: int = 0


def block_hashes(pieces: Sequence[str], block_size: int, salt: object = None) -> list[int]:
    """Return the hashes of the full blocks."""
    hashes: list[int] = []
    parent = hash(salt)
    for end in range(block_size, len(pieces) + 1, block_size):
        parent = hash((parent, *pieces[end - block_size : end]))
        hashes.append(parent)
    return hashes


class BlockPool:
    def __init__(self, total: int, block_size: int) -> None:
        self.total = total
        self.block_size = block_size
        self._references: dict[int, int] = {}
        self._idle: dict[int, None] = {}  # in the order of eviction
        self._private = 0

    @property
    def used(self) -> int:
        return len(self._references) + self._private

    @property
    def usage(self) -> float:
        return min(self.used / self.total, 1.0)

    def count_cached(self, hashes: Sequence[int]) -> int:
        """Return how many leading blocks are cached."""
        count = 0
        for each in hashes:
            if each not in self._references and each not in self._idle:
                break
            count += 1
        return count

    def allocate(self, prompts: Sequence[HashedPrompt], private: int, *, force: bool = False) -> BlockAllocation | None:
        """Allocate the blocks of a request's prompts and `private` more; None if there is no room now.

        The last token is always computed, so the last block of a fully cached prompt counts as uncached.
        """
        hits = sum(
            min(self.count_cached(hashes), (tokens - 1) // self.block_size) for hashes, tokens in prompts if tokens
        )
        hashes = list(dict.fromkeys(each for chained, _ in prompts for each in chained))
        fresh = sum(1 for each in hashes if each not in self._references)
        if self.used + fresh + private > self.total and not force:
            return None
        for each in hashes:
            self._idle.pop(each, None)
            self._references[each] = self._references.get(each, 0) + 1
        self._private += private
        self._evict()
        return BlockAllocation(hashes, private, hits * self.block_size)

    def grow(self, allocation: BlockAllocation, private: int, *, force: bool = False) -> bool:
        """Grow the private blocks to `private`; False if there is no room."""
        more = private - allocation.private
        if more <= 0:
            return True
        if self.used + more > self.total and not force:
            return False
        allocation.private = private
        self._private += more
        self._evict()
        return True

    def free(self, allocation: BlockAllocation, written: Sequence[int] = ()) -> None:
        """Free the blocks; `written` are the hashes of the blocks that the output filled, which stay cached."""
        self._private -= allocation.private
        for each in reversed(written):
            if each not in self._references:
                self._make_idle(each)
        for each in reversed(allocation.shared):
            left = self._references[each] - 1
            if left:
                self._references[each] = left
            else:
                del self._references[each]
                self._make_idle(each)
        allocation.shared, allocation.private = [], 0
        self._evict()

    def clear(self) -> None:
        self._idle.clear()

    def _make_idle(self, each: int) -> None:
        self._idle.pop(each, None)
        self._idle[each] = None

    def _evict(self) -> None:
        while self._idle and self.used + len(self._idle) > self.total:
            del self._idle[next(iter(self._idle))]
