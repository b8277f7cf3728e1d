"""From a version's requests in the ledger to the sample that is compared. Pure."""

from collections.abc import Mapping, Sequence

from quarterdeck.resources.prompts.comparison import Sample
from quarterdeck.store.prompt_results import Result


def sample_of(version: int, results: Sequence[Result], scores: Mapping[str, Sequence[float]] | None = None) -> Sample:
    """Requests that were cancelled count, but are neither errors nor answers. `lost` ones say nothing of the prompt."""
    counted = [each for each in results if each.status != "lost"]
    answers = [each for each in counted if each.status == "ok" and each.cache != "hit"]
    return Sample(
        version=version,
        requests=len(counted),
        errors=sum(each.status == "error" for each in counted),
        costs=[float(each.cost) for each in answers],
        seconds=[max(0.0, each.ended - each.started) for each in answers],
        scores=dict(scores or {}),
    )
