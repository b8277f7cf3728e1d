"""From what the model would say to what it says: length, stop strings, the least and the most tokens. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quarterdeck.simulator.model.text_generator import END
from quarterdeck.simulator.model.tokenizer import token_id


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where an answer ends."""

    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    include_stop: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """An answer's tokens, and why there are no more."""

    pieces: list[str]
    finish_reason: str
    stop_reason: str | int | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def write(source: Iterator[str], bounds: Bounds) -> Written:
    """Take tokens from the source until something ends it.

    A stop string's own tokens are not counted where they are not shown, so that the usage is what /tokenize says of
    the text.
    """
    pieces: list[str] = []
    ends = 0
    for piece in source:
        if piece == END:
            ends += 1
            # a second END in a row: the source has nothing more to say (a finished JSON object), asked or not
            if (not bounds.ignore_eos and len(pieces) >= bounds.min_tokens) or ends > 1:
                return Written(pieces, "stop")
            continue
        ends = 0
        if bounds.stop_token_ids and len(pieces) >= bounds.min_tokens:
            token = token_id(piece)
            if token in bounds.stop_token_ids:
                return Written([*pieces, piece] if bounds.include_stop else pieces, "stop", token)
        pieces.append(piece)
        if bounds.stop and len(pieces) > bounds.min_tokens:
            stopped = cut_at_stop(pieces, bounds.stop, bounds.include_stop)
            if stopped is not None:
                return stopped
        if len(pieces) >= bounds.max_tokens:
            break
    return Written(pieces, "length")


def cut_at_stop(pieces: Sequence[str], stops: Sequence[str], include: bool) -> Written | None:
    """The answer cut at the first stop string that the newest token completed, if it completed one."""
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
    return Written(kept, "stop", stop)
