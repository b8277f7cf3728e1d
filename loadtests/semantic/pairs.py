"""Writes pairs.jsonl: questions with equal meaning, and questions that only look similar.

    python loadtests/semantic/pairs.py

handwritten.jsonl: groups of a question, paraphrases and near misses, each with a kind (a changed number, name, unit,
negation, quotation, order, question or word). TOPICS: sentences with slots, several per meaning; near misses change a
slot's value, swap two values, negate, or are other sentences on the topic. hostile.jsonl: near misses designed to
defeat the verification's rules. adversarial.txt: near misses that differ in a detail, of twelve kinds, written before
the rules that pass them. Rules and threshold were chosen on the half `dev`; `test` is used only for the reported
figures. A topic or group is entirely in one half; of the adversarial pairs every second one is in each half.
"""

import itertools
import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PER_TOPIC = 14
"""Maximum paraphrases per topic, with four times as many near misses: similar pairs are not independent."""


@dataclass(frozen=True)
class Topic:
    """`same`: sentences with equal meaning. `near`: (kind, sentence) of another. `swap`: interchangeable slots."""

    same: tuple[str, ...]
    slots: dict[str, tuple[str, ...]]
    kinds: dict[str, str]
    near: tuple[tuple[str, str], ...] = ()
    swap: tuple[tuple[str, str], ...] = field(default=())


COUNTRIES = ("France", "Germany", "Brazil", "Japan", "Kenya", "Norway", "North Korea", "South Korea")
CITIES = ("Paris", "London", "Madrid", "Rome", "Oslo", "Lima")
LANGUAGES = ("Python", "Java", "Rust", "Go", "JavaScript")

TOPICS = (
    Topic(
        (
            "What is the capital of {c}?",
            "What's the capital city of {c}?",
            "Tell me the capital of {c}.",
            "Name {c}'s capital.",
        ),
        {"c": COUNTRIES},
        {"c": "name"},
        (("word", "What is the currency of {c}?"), ("word", "What is the oldest city of {c}?")),
    ),
    Topic(
        (
            "What is {a} plus {b}?",
            "What's {a} plus {b}?",
            "Calculate {a} plus {b}.",
            "How much is {a} plus {b}?",
            "Tell me what {a} plus {b} is",
        ),
        {"a": ("12", "120", "7", "1,500"), "b": ("30", "31", "300")},
        {"a": "number", "b": "number"},
        (("word", "What is {a} minus {b}?"), ("word", "What is {a} times {b}?")),
    ),
    Topic(
        (
            "Convert {n} {u} to {v}.",
            "Please convert {n} {u} to {v}",
            "How many {v} is {n} {u}?",
            "What is {n} {u} in {v}?",
        ),
        {"n": ("5", "50", "2.5"), "u": ("kilometers", "meters", "feet"), "v": ("miles", "inches", "yards")},
        {"n": "number", "u": "unit", "v": "unit"},
        swap=(("u", "v"),),
    ),
    Topic(
        (
            "How do I {v} a file in {l}?",
            "How can I {v} a file in {l}?",
            "In {l}, how do I {v} a file?",
            "What is the way to {v} a file in {l}?",
        ),
        {"v": ("read", "write", "copy", "compress", "decompress"), "l": LANGUAGES},
        {"v": "word", "l": "name"},
        (("negation", "How do I avoid having to {v} a file in {l}?"), ("word", "How do I {v} a socket in {l}?")),
    ),
    Topic(
        (
            "Is {a} larger than {b}?",
            "Is {a} bigger than {b}?",
            "Would you say that {a} is larger than {b}?",
        ),
        {"a": CITIES[:4], "b": CITIES[3:]},
        {"a": "name", "b": "name"},
        (("word", "Is {a} smaller than {b}?"), ("negation", "Is {a} not larger than {b}?")),
        (("a", "b"),),
    ),
    Topic(
        (
            "When was {p} born?",
            "On which date was {p} born?",
            "What is the birth date of {p}?",
            "Tell me when {p} was born.",
        ),
        {"p": ("Albert Einstein", "Isaac Newton", "Ada Lovelace", "Alan Turing", "Charles Darwin")},
        {"p": "name"},
        (("question", "Where was {p} born?"), ("word", "When did {p} die?")),
    ),
    Topic(
        (
            "How do I book a {k} from {a} to {b}?",
            "How can I book a {k} from {a} to {b}?",
            "I want to book a {k} from {a} to {b}. How do I do it?",
            "How to book a {k} from {a} to {b}",
        ),
        {"k": ("flight", "train", "bus"), "a": CITIES[:3], "b": CITIES[3:]},
        {"k": "word", "a": "name", "b": "name"},
        (("word", "How do I cancel a {k} from {a} to {b}?"),),
        (("a", "b"),),
    ),
    Topic(
        (
            "Is {d} safe during pregnancy?",
            "Is it safe to take {d} during pregnancy?",
            "May I take {d} during pregnancy?",
            "Can {d} be taken during pregnancy?",
        ),
        {"d": ("aspirin", "ibuprofen", "paracetamol", "melatonin", "naproxen")},
        {"d": "word"},
        (
            ("negation", "Is {d} unsafe during pregnancy?"),
            ("word", "Is {d} safe after pregnancy?"),
            ("negation", "Is {d} not safe during pregnancy?"),
        ),
    ),
    Topic(
        (
            "What is the population of {c} in {y}?",
            "What's {c}'s population in {y}?",
            "How many people live in {c} in {y}?",
            "Tell me the population of {c} in {y}.",
        ),
        {"c": COUNTRIES[:6], "y": ("1990", "1991", "2019", "2020")},
        {"c": "name", "y": "number"},
        (("word", "What is the area of {c} in {y}?"), ("word", "What is the birth rate of {c} in {y}?")),
    ),
    Topic(
        (
            "Translate '{q}' into {l}.",
            "Please translate '{q}' to {l}.",
            "How do I say '{q}' in {l}?",
            "What is '{q}' in {l}?",
        ),
        {
            "q": ("thank you", "see you soon", "see you tomorrow", "I am hungry", "I am not hungry"),
            "l": ("French", "German", "Italian", "Polish"),
        },
        {"q": "quotation", "l": "name"},
    ),
    Topic(
        (
            "How do I {v} my {o}?",
            "How can I {v} my {o}?",
            "What are the steps to {v} my {o}?",
            "Please tell me how to {v} my {o}.",
        ),
        {
            "v": ("update", "delete", "verify", "lock", "unlock", "enable", "disable"),
            "o": ("account", "email address", "credit card", "profile picture"),
        },
        {"v": "word", "o": "word"},
        (("question", "Why did you {v} my {o}?"), ("negation", "How do I not {v} my {o}?")),
    ),
    Topic(
        (
            "Write a {k} about {t}.",
            "Please write a {k} about {t}.",
            "Compose a {k} about {t}.",
            "Can you write a {k} on {t}?",
        ),
        {"k": ("poem", "story", "song", "speech"), "t": ("winter", "summer", "the sea", "friendship", "war")},
        {"k": "word", "t": "word"},
        (("number", "Write two poems about {t}."), ("negation", "Write a {k} that is not about {t}.")),
    ),
    Topic(
        (
            "Who won the {y} {e}?",
            "Who was the winner of the {y} {e}?",
            "Tell me who won the {y} {e}.",
            "Which team won the {y} {e}?",
        ),
        {"y": ("1998", "2002", "2006", "2010"), "e": ("World Cup", "Super Bowl", "Champions League")},
        {"y": "number", "e": "name"},
        (("word", "Who lost the {y} {e}?"), ("question", "Where was the {y} {e} held?")),
    ),
    Topic(
        (
            "Does {a} cause {b}?",
            "Can {a} cause {b}?",
            "Is {b} caused by {a}?",
        ),
        {"a": ("stress", "coffee", "alcohol", "smoking"), "b": ("headaches", "insomnia", "anxiety")},
        {"a": "word", "b": "word"},
        (
            ("word", "Does {a} prevent {b}?"),
            ("negation", "Does {a} not cause {b}?"),
            ("question", "Why does {a} cause {b}?"),
        ),
        (("a", "b"),),
    ),
    Topic(
        (
            "How tall is {m}?",
            "What is the height of {m}?",
            "What's {m}'s height?",
            "Tell me how tall {m} is.",
        ),
        {"m": ("Mount Everest", "the Eiffel Tower", "Mount Fuji", "Big Ben", "the Burj Khalifa")},
        {"m": "name"},
        (("question", "How old is {m}?"), ("question", "Where is {m}?")),
    ),
    Topic(
        (
            "Set an alarm for {n} {h}.",
            "Please set an alarm for {n} {h}.",
            "Can you set an alarm for {n} {h}?",
        ),
        {"n": ("6", "7", "11"), "h": ("am", "pm")},
        {"n": "number", "h": "unit"},
        (("word", "Delete the alarm for {n} {h}."), ("word", "Set a reminder for {n} {h}.")),
    ),
    Topic(
        (
            "What is the {x} speed of a {v}?",
            "What's the {x} speed of a {v}?",
            "Tell me the {x} speed of a {v}.",
            "Which is the {x} speed of a {v}?",
        ),
        {"x": ("maximum", "minimum", "average"), "v": ("cheetah", "horse", "bicycle", "Boeing 747", "Airbus A380")},
        {"x": "word", "v": "word"},
        (("word", "What is the {x} weight of a {v}?"),),
    ),
    Topic(
        (
            "Remind me to call {p} in {n} {u}.",
            "Please remind me to call {p} in {n} {u}.",
            "Can you remind me to call {p} in {n} {u}?",
        ),
        {"p": ("Anna", "Hanna", "Tom"), "n": ("two", "ten", "12"), "u": ("minutes", "hours", "days")},
        {"p": "name", "n": "number", "u": "unit"},
        (("negation", "Don't remind me to call {p} in {n} {u}."), ("word", "Remind me to pay {p} in {n} {u}.")),
    ),
    Topic(
        (
            "How many {a} are in a {b}?",
            "How many {a} does a {b} have?",
            "What is the number of {a} in a {b}?",
            "Tell me how many {a} are in a {b}.",
        ),
        {"a": ("seconds", "minutes", "hours"), "b": ("day", "week", "month", "year")},
        {"a": "unit", "b": "unit"},
        (("question", "How are {a} counted in a {b}?"),),
    ),
    Topic(
        (
            "Why does my {o} {p}?",
            "What is the reason that my {o} {p}s?",
            "Explain why my {o} {p}s.",
        ),
        {"o": ("laptop", "car", "dishwasher", "phone"), "p": ("overheat", "leak", "vibrate", "freeze")},
        {"o": "word", "p": "word"},
        (("negation", "Why does my {o} not {p}?"), ("question", "When does my {o} {p}?")),
    ),
    Topic(
        (
            "Summarize the {d} in {n} sentences.",
            "Give me a summary of the {d} in {n} sentences.",
            "Please summarize the {d} in {n} sentences.",
        ),
        {"d": ("contract", "report", "meeting", "Treaty of Rome"), "n": ("two", "three", "10")},
        {"d": "word", "n": "number"},
        (("unit", "Summarize the {d} in {n} words."), ("negation", "Don't summarize the {d} in {n} sentences.")),
    ),
    Topic(
        (
            "Is it legal to {v} in {c}?",
            "Am I allowed to {v} in {c}?",
            "May I {v} in {c}?",
            "Is {g} legal in {c}?",
        ),
        {"v": ("gamble", "hitchhike", "camp"), "g": ("gambling", "hitchhiking", "camping"), "c": COUNTRIES[:5]},
        {"c": "name"},
        (("negation", "Is it illegal to {v} in {c}?"), ("question", "Why is it legal to {v} in {c}?")),
    ),
    Topic(
        (
            "Show me flights under {n} {m}.",
            "Please show flights under {n} {m}",
            "List flights below {n} {m}.",
        ),
        {"n": ("200", "250", "2000"), "m": ("dollars", "euros", "pounds")},
        {"n": "number", "m": "unit"},
        (("word", "Show me flights over {n} {m}."), ("word", "Show me hotels under {n} {m}.")),
    ),
    Topic(
        (
            "What does the {a} pay the {b}?",
            "Tell me what the {a} pays the {b}.",
            "What is paid by the {a} to the {b}?",
        ),
        {"a": ("tenant", "buyer", "employer", "bank"), "b": ("landlord", "seller", "insurer")},
        {"a": "word", "b": "word"},
        (("question", "When does the {a} pay the {b}?"), ("question", "Why does the {a} pay the {b}?")),
        (("a", "b"),),
    ),
)


def pair(one: str, other: str, is_same: bool, kind: str, source: str, half: str) -> dict[str, Any]:
    return {"one": one, "other": other, "same": is_same, "kind": kind, "source": source, "half": half}


def hostile(lines: list[str]) -> list[dict[str, Any]]:
    """Near misses designed to defeat the verification's rules."""
    read = [json.loads(line) for line in lines]
    return [pair(found["one"], found["other"], False, found["kind"], "hostile", "dev") for found in read]


def adversarial(lines: list[str]) -> list[dict[str, Any]]:
    """Near misses of the kinds in the headings, half of each kind in each half."""
    found, kind, number = [], "", 0
    for line in lines:
        if line.startswith("## "):
            kind, number = line[3:], 0
        elif line and not line.startswith("#"):
            variants = re.fullmatch(r"(.*?)\[\[(.*)\|\|(.*)\]\](.*)", line)
            if variants is None:
                raise ValueError(f"no variants: {line}")
            before, one, other, after = variants.groups()
            half = ("dev", "test")[number % 2]
            found.append(pair(before + one + after, before + other + after, False, kind, "adversarial", half))
            number += 1
    return found


def written(lines: list[str]) -> list[dict[str, Any]]:
    """Pairs of each group's first sentence with the others."""
    found = []
    for number, line in enumerate(lines):
        group = json.loads(line)
        first, *others = group["same"]
        about = (f"written {number}", ("dev", "test")[number % 2])
        found += [pair(first, other, True, "paraphrase", *about) for other in others]
        found += [pair(first, other, False, kind, *about) for kind, other in group["near"]]
    return found


def fillings(topic: Topic) -> list[dict[str, str]]:
    """All combinations of slots; slots without their own kind (gerunds) follow their verb."""
    free = [slot for slot in topic.slots if slot != "g"]
    found = []
    for values in itertools.product(*(range(len(topic.slots[slot])) for slot in free)):
        filling = {slot: topic.slots[slot][at] for slot, at in zip(free, values, strict=True)}
        if "g" in topic.slots:
            filling["g"] = topic.slots["g"][topic.slots["v"].index(filling["v"])]
        found.append(filling)
    return found


def made(topic: Topic, about: tuple[str, str], random: random.Random) -> list[dict[str, Any]]:
    all_fillings = fillings(topic)
    same, near = [], []
    for filling in all_fillings:
        one, other = random.sample(topic.same, 2)
        same.append(pair(one.format(**filling), other.format(**filling), True, "paraphrase", *about))
        for slot, kind in topic.kinds.items():
            for value in topic.slots[slot]:
                if value != filling[slot]:
                    first, second = random.choice(topic.same), random.choice(topic.same)
                    changed = second.format(**filling | {slot: value})
                    near.append(pair(first.format(**filling), changed, False, kind, *about))
        for a, b in topic.swap:
            sentence = random.choice(topic.same)
            turned = sentence.format(**filling | {a: filling[b], b: filling[a]})
            near.append(pair(sentence.format(**filling), turned, False, "order", *about))
        for kind, sentence in topic.near:
            first = random.choice(topic.same)
            near.append(pair(first.format(**filling), sentence.format(**filling), False, kind, *about))
    near = [found for found in near if found["one"] != found["other"]]
    return random.sample(same, min(PER_TOPIC, len(same))) + spread(near, 4 * PER_TOPIC, random)


def spread(near: list[dict[str, Any]], most: int, random: random.Random) -> list[dict[str, Any]]:
    """Choose a number of items, taking kinds in turn."""
    random.shuffle(near)
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for found in near:
        by_kind.setdefault(found["kind"], []).append(found)
    turns = itertools.zip_longest(*by_kind.values())
    return [found for turn in turns for found in turn if found is not None][:most]


def main() -> None:
    pairs = written((HERE / "handwritten.jsonl").read_text().splitlines())
    pairs += hostile((HERE / "hostile.jsonl").read_text().splitlines())
    pairs += adversarial((HERE / "adversarial.txt").read_text().splitlines())
    for number, topic in enumerate(TOPICS):
        about = (f"topic {number}", ("dev", "test")[number % 2])
        pairs += made(topic, about, random.Random(number))  # the same pairs in every run
    with (HERE / "pairs.jsonl").open("w") as file:
        file.writelines(json.dumps(found, ensure_ascii=False) + "\n" for found in pairs)


if __name__ == "__main__":
    main()
