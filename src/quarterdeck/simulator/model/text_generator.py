"""The text of the simulated model: each token is a function of all the text before it.

A checksum over the text so far chooses the next token. So, as with a real model at temperature 0, a prompt that ends
with half an answer generates the other half: chat's `continue_final_message` and a raw completion of a longer prompt
both resume exactly. Seed, model or adapter, and choice index are the checksum's initial value.
"""

from collections.abc import Iterator
from zlib import crc32

from quarterdeck.simulator.model.tokenizer import split

END_OF_TEXT = ""
"""The token at which the model stops. Tokens after it are generated with ignore_eos or min_tokens."""

_WORDS = """
a able about above after again air all along also and any area ask at away back bad ball bank base bay be
bear beat bed been bell below best big bird blue boat body bold book born both bow box brave bread brief
bring broad build busy but by call calm can cape care case chart check city clay clean clear climb close
cloud coast cold come coral could count crew cross cut dark dawn day deck deep do door down draw dream drift
drive drop dry each early earth east easy edge eight end enter even ever every face fact fair fall far fast
feel few field fine fire first fish five fleet float flow fly fog for force form found four free fresh from
full gale give glad go gold good gray great green grow guide gulf half hand happy harm have head hear heart
help here high hill hold home hope hour house how hull idea in iron is it join just keep keel kind knot know
lake lamp land large last late lead learn leave left less let life light like line list long look loud low
made main make many map mark mast may mean meet mild mind more moon most move much name near never new next
night nine no north note now ocean of off old on one open or other our out over pace path plain plan play
point port quick quiet rain range reach read ready rest right river road rope round row run sail salt
"""
WORDS = tuple(_WORDS.split())
"""At most five letters: with its leading space, each word is one token."""

CAPITALS = tuple(word.capitalize() for word in WORDS)
SPACED = tuple(" " + word for word in WORDS)
SPACED_CAPITALS = tuple(" " + word.capitalize() for word in WORDS)


def seed_of(*parts: object) -> int:
    """Return the checksum's initial value."""
    return crc32("\x1f".join(map(str, parts)).encode())


def mix_bits(number: int) -> int:
    """Hash 32 bits to 32 bits; a CRC alone is linear."""
    number ^= number >> 16
    number = number * 0x7FEB352D & 0xFFFFFFFF
    number ^= number >> 15
    number = number * 0x846CA68B & 0xFFFFFFFF
    return number ^ number >> 16


def generate_tokens(before: str, start: int) -> Iterator[str]:
    """Yield the tokens that follow `before`, endlessly, with END_OF_TEXT where the model stops."""
    state = crc32(before.encode(), start)
    last = before[-1:]
    while True:
        draw = mix_bits(state)
        word, die = draw & 255, draw >> 8 & 63
        if last == "." and die < 12:
            yield END_OF_TEXT
        if last == ".":
            piece = SPACED_CAPITALS[word]
        elif last.isspace() or not last:
            piece = WORDS[word] if last == " " else CAPITALS[word]
        elif last.isalnum() and die < 5:
            piece = "."
        elif last.isalnum() and die < 9:
            piece = ","
        else:
            piece = SPACED[word]
        yield piece
        state = crc32(piece.encode(), state)
        last = piece[-1]


def replay_tokens(text: str, *, repeat: bool) -> Iterator[str]:
    """Yield the text's tokens and END_OF_TEXT, then the text again with `repeat`, else END_OF_TEXT endlessly."""
    pieces = split(text)
    while True:
        yield from pieces
        yield END_OF_TEXT
        if not repeat or not pieces:
            while True:
                yield END_OF_TEXT


def sentence(start: int, count: int) -> str:
    """Return `count` words, for a string field."""
    return " ".join(WORDS[mix_bits(start + index) & 255] for index in range(count))
