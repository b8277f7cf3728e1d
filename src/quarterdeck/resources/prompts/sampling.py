"""From a version's requests in the ledger to the sample that is compared. Pure.

A request that an engine refused (4xx) may be its caller's fault: a wrong parameter, a conversation that is too long.
Such a caller is refused with any version; or, where it meets only one because labels are sticky, it is refused while
most others are not. Its refusals are left out, so that a single client with a fault rolls no canary back.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from quarterdeck.resources.prompts.comparison import Sample
from quarterdeck.store.prompt_results import Result

Caller = tuple[str, str | None]
"""Key, and the user that the request named."""

TOO_MANY_REQUESTS = 429


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of a version's requests."""

    version: int
    results: Sequence[Result]
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    checked: int = 0
    """Captured answers that were checked against the version's schema."""
    valid: int = 0


def samples_of(baseline: Observed, candidate: Observed) -> tuple[Sample, Sample]:
    return _sample(baseline, candidate), _sample(candidate, baseline)


def _sample(observed: Observed, other: Observed) -> Sample:
    """Requests that were cancelled count, but are neither errors nor answers. `lost` ones say nothing of the prompt."""
    at_fault = _refused_by_their_own_fault(observed.results, other.results)
    counted = [
        each
        for each in observed.results
        if each.status != "lost" and not (_is_refusal(each) and (_is_busy(each) or _caller(each) in at_fault))
    ]
    answers = [each for each in counted if each.status == "ok" and each.cache != "hit"]
    return Sample(
        version=observed.version,
        requests=len(counted),
        errors=sum(each.status == "error" for each in counted),
        costs=[float(each.cost) for each in answers],
        seconds=[max(0.0, each.ended - each.started) for each in answers],
        scores=dict(observed.scores),
        checked=observed.checked,
        valid=observed.valid,
    )


def _refused_by_their_own_fault(results: Sequence[Result], other: Sequence[Result]) -> set[Caller]:
    """Callers whose refusals do not count against the version of `results`: the other version refuses at least half
    as often what they send; or they sent it nothing, and most callers of this version are not refused."""
    requests, refused = _counts(results)
    requests_of_other, refused_of_other = _counts(other)
    is_spared = 2 * len(refused) < len(requests)
    found = set()
    for caller, count in refused.items():
        if requests_of_other[caller]:
            if 2 * refused_of_other[caller] * requests[caller] >= count * requests_of_other[caller]:
                found.add(caller)
        elif is_spared:
            found.add(caller)
    return found


def _counts(results: Sequence[Result]) -> tuple[Counter[Caller], Counter[Caller]]:
    """Requests by caller, and those of them that were refused."""
    considered = [each for each in results if each.status != "lost" and not _is_busy(each)]
    return Counter(map(_caller, considered)), Counter(_caller(each) for each in considered if _is_refusal(each))


def _caller(result: Result) -> Caller:
    return result.key, result.user


def _is_refusal(result: Result) -> bool:
    return result.status == "error" and 400 <= result.http_status < 500


def _is_busy(result: Result) -> bool:
    """Whether an engine or a provider had no room for it: no fault of any version."""
    return result.http_status == TOO_MANY_REQUESTS
