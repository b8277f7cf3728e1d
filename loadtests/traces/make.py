"""Generates the traces in this folder: `python3 loadtests/traces/make.py`. Standard library only; deterministic.

They have the shapes that published traces have, and none of their rows: `bursts.csv` as BurstGPT's (calm, and now and
then a crowd), `two_kinds.csv` as Azure's (steady; short answers to long prompts, long answers to short ones).
"""

import csv
import random
from datetime import datetime, timedelta
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = 120


def bursts(draw: random.Random) -> list[list[object]]:
    """Gamma-distributed gaps (shape 0.3: many short, few long) and log-normal lengths."""
    rows: list[list[object]] = []
    at = 0.0
    while (at := at + draw.gammavariate(0.3, 0.1 / 0.3)) < SECONDS:
        asked = min(1500, max(4, int(draw.lognormvariate(4.4, 1.0))))
        answered = min(400, max(2, int(draw.lognormvariate(3.6, 0.9))))
        rows.append([round(at, 3), "ChatGPT", asked, answered, asked + answered, "Conversation log"])
    return rows


def two_kinds(draw: random.Random) -> list[list[object]]:
    """Code completion (long prompts, short answers) and conversation, at varying rates."""
    start = datetime(2024, 1, 1, 12, 0, 0)
    rows: list[list[object]] = []
    at = 0.0
    while (at := at + draw.expovariate(4 if at % 60 < 30 else 8)) < SECONDS:
        is_code = draw.random() < 0.4
        asked = int(draw.lognormvariate(6.5, 0.5) if is_code else draw.lognormvariate(5.0, 0.9))
        answered = int(draw.lognormvariate(2.7, 0.6) if is_code else draw.lognormvariate(4.3, 0.7))
        moment = (start + timedelta(seconds=at)).strftime("%Y-%m-%d %H:%M:%S.%f")
        rows.append([f"{moment}0", min(2000, max(4, asked)), min(400, max(2, answered))])
    return rows


def write(name: str, head: list[str], rows: list[list[object]]) -> None:
    with (HERE / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


if __name__ == "__main__":
    columns = ["Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type"]
    write("bursts.csv", columns, bursts(random.Random(1)))
    write("two_kinds.csv", ["TIMESTAMP", "ContextTokens", "GeneratedTokens"], two_kinds(random.Random(2)))
