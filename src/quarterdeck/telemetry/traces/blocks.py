"""Encoded attributes that many records have in common, such as those of a key or a model, kept for the next record."""

from collections.abc import Callable, Hashable
from typing import Any

MOST = 4096
"""Blocks of one kind, of some hundred bytes each. Past it all are dropped: one takes microseconds to make."""


class Blocks:
    """Encoded attributes by the values that they show."""

    __slots__ = ("_blocks", "_most")

    def __init__(self, most: int = MOST) -> None:
        self._blocks: dict[Hashable, bytes] = {}
        self._most = most

    def get(self, values: Hashable, make: Callable[..., bytes], *arguments: Any) -> bytes:
        """The block of these values, made of the arguments if it is new."""
        block = self._blocks.get(values)
        if block is None:
            if len(self._blocks) >= self._most:
                self._blocks.clear()
            block = self._blocks[values] = make(*arguments)
        return block
