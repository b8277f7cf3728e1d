"""A Model's objects as they were last seen."""

from dataclasses import dataclass

from quarterdeck.operator.manifests import Manifest


@dataclass(frozen=True, slots=True)
class Observed:
    """A Model's objects as they were last seen."""

    children: tuple[Manifest, ...]
    """Objects that the Model controls."""
    pods: tuple[Manifest, ...]
    others: tuple[Manifest, ...]
    """ReplicaSets and whatever else carries the Model's label."""
