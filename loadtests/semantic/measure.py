"""Measures precision and recall of the semantic cache by threshold, with and without verification.

    .envs/core/bin/python loadtests/semantic/measure.py [--misses dev]

Reads pairs.jsonl and cosines.json (embed.py), writes results.json and prints the tables of docs/caching.md.
"""

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from quarterdeck.inference.cache.normalization import normalize

HERE = Path(__file__).resolve().parent
THRESHOLDS = (0.70, 0.75, 0.80, 0.85, 0.90, 0.92, 0.94, 0.96, 0.98)


def figures(pairs: list[dict[str, Any]], threshold: float, *, verified: bool) -> dict[str, Any]:
    """Precision and recall of hits, and the share of near misses that are false hits."""
    hits = [p for p in pairs if p["cosine"] >= threshold and (p["verified"] or not verified)]
    right = sum(p["same"] for p in hits)
    same = sum(p["same"] for p in pairs)
    wrong, near = len(hits) - right, len(pairs) - same
    return {
        "threshold": threshold,
        "verified": verified,
        "hits": len(hits),
        "false_hits": wrong,
        "precision": round(right / len(hits), 4) if hits else None,
        "recall": round(right / same, 4),
        "false_hit_rate": round(wrong / near, 4),
        "at_most": round(upper_bound(wrong, near), 4),
    }


def upper_bound(wrong: int, of: int) -> float:
    """Upper bound of the false-hit rate with 95 % confidence (Clopper-Pearson, by bisection)."""
    low, high = wrong / of, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        logs = (_log_choose(of, k) + k * math.log(rate) + (of - k) * math.log1p(-rate) for k in range(wrong + 1))
        below = sum(map(math.exp, logs))
        low, high = (rate, high) if below > 0.05 else (low, rate)
    return high


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def row(found: dict[str, Any]) -> str:
    precision = "–" if found["precision"] is None else f"{found['precision']:.1%}"
    return (
        f"| {found['threshold']:.2f} | {'yes' if found['verified'] else 'no'} | {precision} | {found['recall']:.1%} "
        f"| {found['false_hit_rate']:.2%} | {found['at_most']:.2%} |"
    )


def judged() -> list[dict[str, Any]]:
    """The pairs, each with its cosine and whether verification accepts it."""
    pairs: list[dict[str, Any]] = [json.loads(line) for line in (HERE / "pairs.jsonl").read_text().splitlines()]
    for pair, cosine in zip(pairs, json.loads((HERE / "cosines.json").read_text()), strict=True):
        pair["cosine"] = cosine
        one, other = normalize(pair["one"]), normalize(pair["other"])
        pair["verified"] = one is not None and one == other
    return pairs


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--misses", choices=("dev", "test"), help="print misjudged pairs")
    misses = arguments.parse_args().misses
    pairs = judged()
    for pair in pairs:
        if pair["half"] == misses and pair["verified"] != pair["same"]:
            texts = [f"{pair[which]}\n    {normalize(pair[which])}" for which in ("one", "other")]
            print(pair["kind"], pair["cosine"], *texts, sep="\n  ")
    results: dict[str, Any] = {"model": "all-MiniLM-L6-v2"}
    for half in ("dev", "test"):
        chosen = [pair for pair in pairs if pair["half"] == half]
        table = [figures(chosen, at, verified=verified) for verified in (False, True) for at in THRESHOLDS]
        passed = Counter(pair["kind"] for pair in chosen if pair["verified"] and not pair["same"])
        results[half] = {
            "pairs": len(chosen),
            "paraphrases": sum(pair["same"] for pair in chosen),
            "near_misses": dict(Counter(pair["kind"] for pair in chosen if not pair["same"])),
            "verified_near_misses": dict(passed),
            "table": table,
        }
        print(
            f"\n{half}: {results[half]['paraphrases']} paraphrases, {sum(not p['same'] for p in chosen)} near misses\n"
        )
        print("| threshold | verified | precision | recall | false hits | at most (95 %) |\n|--:|---|--:|--:|--:|--:|")
        print("\n".join(row(found) for found in table))
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
