"""What the simulated model says: each next word is a function of all the text before it.

As with a real model at temperature 0, text that goes on from "prompt + half an answer" is the other half of the answer:
a checksum over the text so far chooses the next token, so chat's `continue_final_message` and a raw completion of a
longer prompt both resume exactly. Seed, adapter and choice index go into the checksum's start.
"""

from collections.abc import Iterator
from zlib import crc32

from quarterdeck.simulator.model.tokenizer import split

END = ""
"""Where the model would stop. What follows is what it says if told to go on."""

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
"""Five letters at most: with its space each is one token."""

CAPITALS = tuple(word.capitalize() for word in WORDS)
SPACED = tuple(" " + word for word in WORDS)
SPACED_CAPITALS = tuple(" " + word.capitalize() for word in WORDS)


def seeded(*parts: object) -> int:
    """The checksum's start."""
    return crc32("\x1f".join(map(str, parts)).encode())


def mix(number: int) -> int:
    """32 bits in, 32 well-stirred bits out: a checksum alone is linear."""
    number ^= number >> 16
    number = number * 0x7FEB352D & 0xFFFFFFFF
    number ^= number >> 15
    number = number * 0x846CA68B & 0xFFFFFFFF
    return number ^ number >> 16


def speak(before: str, start: int) -> Iterator[str]:
    """Tokens that follow `before`, without end; END where the model would stop."""
    state = crc32(before.encode(), start)
    last = before[-1:]
    while True:
        draw = mix(state)
        word, die = draw & 255, draw >> 8 & 63
        if last == "." and die < 12:
            yield END
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


def recite(text: str, *, repeat: bool) -> Iterator[str]:
    """The text's tokens, then END; told to go on, the text again, or END for ever where nothing may follow."""
    pieces = split(text)
    while True:
        yield from pieces
        yield END
        if not repeat or not pieces:
            while True:
                yield END


def sentence(start: int, count: int) -> str:
    """A few words, for a field that wants text."""
    return " ".join(WORDS[mix(start + index) & 255] for index in range(count))
