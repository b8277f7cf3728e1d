"""A finding: what keeps a Model from being served, in words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quarterdeck.kube.conditions import ConditionType, Reason
from quarterdeck.kube.reasons import EXPLANATIONS

Object = Mapping[str, Any]
"""An object as the API returns it."""

_VOLATILE = re.compile(r"\b(?:[0-9a-f]{8,}|[a-z0-9]*\d[\w.]*)\b")


@dataclass(frozen=True, slots=True)
class Finding:
    """`message` says what is wrong, `hint` what to do about it. All texts are whole sentences."""

    reason: Reason
    message: str
    hint: str = ""
    subject: Object | None = None
    """The object that shows it: a pod, claim or ReplicaSet."""
    quote: str = ""
    """Details that change by themselves, such as what the scheduler says of each node: never a reason for another
    Event."""

    @property
    def condition(self) -> ConditionType:
        """The condition that is not True because of it."""
        return EXPLANATIONS[self.reason].condition

    @property
    def is_progress(self) -> bool:
        """Whether nothing is wrong: it takes time."""
        return EXPLANATIONS[self.reason].is_progress

    @property
    def text(self) -> str:
        return " ".join(filter(None, (self.message, self.quote, self.hint)))

    @property
    def key(self) -> str:
        """Equal for the same cause: the message without names of pods, counts and sizes, which change by themselves."""
        return f"{self.reason}: {_VOLATILE.sub('#', self.message)}"


def sentence(text: str) -> str:
    """Text that others wrote, with a full stop at its end."""
    text = " ".join(text.split())
    return text if not text or text[-1] in ".!?…" else f"{text}."


def name_of(item: Object) -> str:
    return str((item.get("metadata") or {}).get("name", ""))


def uid_of(item: Object) -> str:
    return str((item.get("metadata") or {}).get("uid", ""))
