"""What running responses have cost so far, from the records of their engine calls."""

from decimal import Decimal

from quarterdeck.record import RequestRecord


class RunningCosts:
    """Only responses whose cost is limited are followed."""

    def __init__(self) -> None:
        self._costs: dict[str, Decimal] = {}

    def begin(self, response: str) -> None:
        self._costs.setdefault(response, Decimal(0))

    def end(self, response: str) -> None:
        self._costs.pop(response, None)

    def of(self, response: str) -> Decimal:
        return self._costs.get(response, Decimal(0))

    def observe(self, record: RequestRecord) -> None:
        """Add a record's cost to its response's."""
        if record.parent is not None and record.parent in self._costs:
            self._costs[record.parent] += record.cost
