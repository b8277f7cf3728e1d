"""Langfuse's numbers of our versions: a generation is linked to the version with the number that it has there."""

from collections.abc import Mapping

from quarterdeck.record import RequestRecord


class PromptNumbers:
    """Kept by the synchronisation of prompts. `numbers`: by organisation, name and our number; None: prompts are not
    synchronised, and a version is expected to have the same number there."""

    def __init__(self, numbers: Mapping[tuple[str, str, str], str] | None = None) -> None:
        self._numbers = None if numbers is None else dict(numbers)

    def replace(self, numbers: Mapping[tuple[str, str, str], str] | None) -> None:
        self._numbers = None if numbers is None else dict(numbers)

    def add(self, org: str, name: str, ours: int, theirs: int) -> None:
        """A version that was carried over just now, before a label leads requests to it."""
        if self._numbers is not None:
            self._numbers[org, name, str(ours)] = str(theirs)

    def of(self, record: RequestRecord) -> str:
        """The number of the version that a request used. Empty: it is not there, or the request used none."""
        version = record.prompt_version or ""
        if self._numbers is None:
            return version
        return self._numbers.get((record.org, record.prompt or "", version), "")
