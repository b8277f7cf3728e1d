"""Which version a label leads to: the one, or one of several by weight. No state. Pure.

A sticky split hashes the user or session to a place between 0 and 1. The places of a prompt's label are the same for
every split, so a user of a canary stays with it while its share grows. They differ from prompt to prompt, so that the
same users are not the first each time.
"""

import hashlib
from collections.abc import Callable
from itertools import accumulate
from random import random as unseeded

from quarterdeck.settings.prompts import LabelSpec


class LabelTargets:
    """A label's versions, ready to be drawn from."""

    __slots__ = ("_below", "_salt", "sticky", "versions")

    def __init__(self, prompt: str, label: str, spec: LabelSpec) -> None:
        """`prompt`: its id."""
        targets = [each for each in spec.targets if each.weight]
        total = sum(each.weight for each in targets)
        self.versions = tuple(each.version for each in targets)
        self.sticky = spec.sticky
        self._below = tuple(sum_ / total for sum_ in accumulate(each.weight for each in targets))
        self._salt = f"{prompt} {label} ".encode()

    @property
    def is_split(self) -> bool:
        return len(self.versions) > 1

    def pick(self, who: str | None, random: Callable[[], float] = unseeded) -> int:
        """The version for a request of this user or session. None: it has none, or the split is not sticky."""
        if len(self.versions) == 1:
            return self.versions[0]
        place = random() if who is None else self._place(who)
        for version, below in zip(self.versions, self._below, strict=True):
            if place < below:
                return version
        return self.versions[-1]

    def _place(self, who: str) -> float:
        digest = hashlib.blake2b(self._salt + who.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2.0**64
