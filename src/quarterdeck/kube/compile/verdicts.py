"""Whether an object is accepted and what it refers to exists, as conditions."""

from dataclasses import dataclass

from quarterdeck.kube.conditions import Condition, ConditionType, Reason

Key = tuple[str, str]
"""Kind and name of an object."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What compiling found out about one object."""

    generation: int
    """Generation of the spec that was compiled."""
    is_accepted: bool = True
    reason: Reason = Reason.ACCEPTED
    """Of the condition Accepted."""
    message: str = ""
    is_resolved: bool = True
    """Whether everything that the spec names exists."""
    resolved_reason: Reason = Reason.RESOLVED
    """Of the condition ResolvedRefs."""
    resolved_message: str = ""
    is_compiled: bool = True
    """Whether the object is part of the configuration, wholly or in part."""

    def conditions(self, *, refers: bool) -> list[Condition]:
        """As conditions without transition times. `refers`: with ResolvedRefs, for kinds that name others."""
        found = [_condition(ConditionType.ACCEPTED, self.is_accepted, self.reason, self.message, self.generation)]
        if refers and self.is_accepted:
            found.append(
                _condition(
                    ConditionType.RESOLVED_REFS,
                    self.is_resolved,
                    self.resolved_reason,
                    self.resolved_message,
                    self.generation,
                )
            )
        return found


def _condition(kind: ConditionType, is_true: bool, reason: Reason, message: str, generation: int) -> Condition:
    return Condition(
        type=kind, status="True" if is_true else "False", reason=reason, message=message, observed_generation=generation
    )


def refused(generation: int, reason: Reason, message: str) -> Verdict:
    """An object that is not accepted."""
    return Verdict(generation, is_accepted=False, reason=reason, message=message, is_compiled=False)
