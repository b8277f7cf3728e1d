"""Live figures of a run: a progress line every few seconds, and the result of each step of a ramp. Pure."""

from dataclasses import dataclass, field

from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.knee import RampStep
from quarterdeck.load.analysis.objectives import Slo
from quarterdeck.load.analysis.samples import Sample


@dataclass
class _Second:
    ended: int = 0
    good: int = 0
    errors: int = 0
    tokens: int = 0
    answers_ms: list[float] = field(default_factory=list)


@dataclass
class Progress:
    """Groups samples by the second in which each request was due."""

    start: float
    slo: Slo
    errors: dict[str, int] = field(default_factory=dict)
    _seconds: dict[int, _Second] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        held = self._seconds.setdefault(int(sample.intended - self.start), _Second())
        held.ended += 1
        held.tokens += sample.output_tokens
        if sample.is_error:
            held.errors += 1
            self.errors[sample.outcome] = self.errors.get(sample.outcome, 0) + 1
        elif sample.is_ok:
            held.answers_ms.append(sample.answer_ms)
        is_expected = not (sample.is_ok or sample.is_error)  # a misbehaving client was rejected as intended
        if sample.keeps(self.slo) or is_expected:
            held.good += 1

    def step(self, rate: float, begin: float, end: float) -> RampStep:
        """The result of requests due between two times (seconds after the start)."""
        held = self._between(begin, end)
        answers = sorted(ms for second in held for ms in second.answers_ms)
        return RampStep(rate, sum(second.good for second in held) / (end - begin), quantile(answers, 0.99))

    def line(self, begin: float, end: float) -> str:
        """A line for the terminal. Requests still in flight are not counted."""
        held = self._between(begin, end)
        answers = sorted(ms for second in held for ms in second.answers_ms)
        span = max(end - begin, 1e-9)
        p50, p99 = quantile(answers, 0.5), quantile(answers, 0.99)
        answered, good, tokens = (sum(getattr(s, name) for s in held) / span for name in ("ended", "good", "tokens"))
        text = f"{end:5.0f} s  answered {answered:7.1f}/s  good {good:7.1f}/s  tokens {tokens:7.0f}/s"
        text += f"  errors {sum(s.errors for s in held)}"
        return text if p50 is None or p99 is None else f"{text}  first answer p50 {p50:.0f} ms, p99 {p99:.0f} ms"

    def _between(self, begin: float, end: float) -> list[_Second]:
        return [second for at, second in self._seconds.items() if begin <= at < end]
