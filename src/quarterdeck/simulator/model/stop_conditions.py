"""Where generation stops: token limits, stop strings, stop tokens, end of text. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quarterdeck.simulator.model.text_generator import END_OF_TEXT
from quarterdeck.simulator.model.tokenizer import token_id


@dataclass(frozen=True, slots=True)
class StopConditions:
    """The fields of vLLM's SamplingParams that end an output."""

    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    include_stop: bool = False


@dataclass(frozen=True, slots=True)
class CompletionOutput:
    """One generated output: its tokens and why it ended."""

    pieces: list[str]
    finish_reason: str
    stop_reason: str | int | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def generate_output(source: Iterator[str], conditions: StopConditions) -> CompletionOutput:
    """Take tokens from the source until a stop condition holds.

    Tokens of a stop string that is not returned are not counted, so that usage equals what /tokenize returns for the
    text.
    """
    pieces: list[str] = []
    ends = 0
    for piece in source:
        if piece == END_OF_TEXT:
            ends += 1
            # two END_OF_TEXT in a row: the source is exhausted (a complete JSON object), whatever ignore_eos says
            if (not conditions.ignore_eos and len(pieces) >= conditions.min_tokens) or ends > 1:
                return CompletionOutput(pieces, "stop")
            continue
        ends = 0
        if conditions.stop_token_ids and len(pieces) >= conditions.min_tokens:
            token = token_id(piece)
            if token in conditions.stop_token_ids:
                return CompletionOutput([*pieces, piece] if conditions.include_stop else pieces, "stop", token)
        pieces.append(piece)
        if conditions.stop and len(pieces) > conditions.min_tokens:
            stopped = cut_at_stop_string(pieces, conditions.stop, conditions.include_stop)
            if stopped is not None:
                return stopped
        if len(pieces) >= conditions.max_tokens:
            break
    return CompletionOutput(pieces, "length")


def cut_at_stop_string(pieces: Sequence[str], stops: Sequence[str], include: bool) -> CompletionOutput | None:
    """Return the output cut at the first stop string that the last token completed, None if it completed none."""
    reach = max(map(len, stops))
    length, first = len(pieces[-1]), len(pieces) - 1
    while first > 0 and length < reach + len(pieces[-1]):
        first -= 1
        length += len(pieces[first])
    tail = "".join(pieces[first:])
    found = min(((tail.find(stop), stop) for stop in stops if stop in tail), default=None)
    if found is None:
        return None
    place, stop = found
    kept = list(pieces[:first])
    keep = place + (len(stop) if include else 0)
    for piece in pieces[first:]:
        if keep <= 0:
            break
        kept.append(piece[:keep])
        keep -= len(piece)
    return CompletionOutput(kept, "stop", stop)
