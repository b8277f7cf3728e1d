"""Turns rounds into tables and plots and inserts them into docs/benchmarks.md. Pure apart from `write`."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from drive import Round

from quarterdeck.load.report.plots import Plot, draw

DOC = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
# The report's classes (quarterdeck/load/report/report.css) for standalone files, in light and dark mode.
STYLE = """<style>
svg{--ink:#1b1f24;--soft:#57606a;--line:#d5dae0;--paper:#fff;--c0:#0072b2;--c1:#c4500b;--c2:#00805c;--c3:#a6418a;\
--c4:#8a6d00;--c5:#2b8cbe;--c6:#5b5b5b;--c7:#1b1f24;font:12px system-ui,sans-serif;background:var(--paper)}
@media (prefers-color-scheme:dark){svg{--ink:#e4e8ed;--soft:#a3adb8;--line:#343b44;--paper:#14171b;--c0:#56b4e9;\
--c1:#f08c3c;--c2:#2fc496;--c3:#e08bc6;--c4:#e8cf4a;--c5:#9bd0f0;--c6:#b5b5b5;--c7:#e4e8ed}}
text{fill:var(--ink)}.tick,.label{fill:var(--soft)}.tick{font-size:11px}.middle{text-anchor:middle}.end{text-anchor:end}
.grid{stroke:var(--line);fill:none}
.axis{stroke:var(--soft);fill:none}.mark{stroke:var(--soft);stroke-dasharray:2 3;fill:none}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.d1{stroke-dasharray:7 4}.d2{stroke-dasharray:2 3}
.d3{stroke-dasharray:9 3 2 3}.dot{fill:var(--paper);stroke-width:1.8}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}.c4{stroke:var(--c4)}.c5{stroke:var(--c5)}
.c6{stroke:var(--c6)}.c7{stroke:var(--c7)}
</style>"""


_HEAD = ["", "rps", "p50 ms", "p99 ms", "CPU µs/request", "CPU s per 1,000", "RSS MiB", "other core idle"]
_HEAD += ["worker µs/request"]


def spread(values: Iterable[float], digits: int = 0) -> str:
    """The median, with minimum and maximum in brackets."""
    found = list(values)
    middle, least, most = (f"{each:,.{digits}f}" for each in (statistics.median(found), min(found), max(found)))
    return f"{middle} ({least}–{most})"


def median(rounds: Iterable[Any], name: str) -> float:
    """The spread of one field of the rounds."""
    return statistics.median([float(getattr(each, name)) for each in rounds])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def comparison(rounds: Mapping[tuple[str, str], Sequence[Round]]) -> str:
    """Compare the servers, given as (mode, name) → rounds."""
    return table(_HEAD, [_row(mode, name, runs) for (mode, name), runs in rounds.items()])


def _row(mode: str, name: str, runs: Sequence[Round]) -> list[str]:
    cpu, worker = median(runs, "cpu_us"), median(runs, "worker_us")
    own = median(runs, "rss_mb") > 0
    return [
        f"{name} {mode}",
        spread(run.rps for run in runs),
        spread((run.p50 for run in runs), 2),
        spread((run.p99 for run in runs), 2),
        spread(run.cpu_us for run in runs) if own else "–",
        f"{cpu / 1000:.3f}" if own else "–",
        f"{median(runs, 'rss_mb'):.0f}" if own else "–",
        f"{median(runs, 'other_core_idle'):.0%}",
        f"{worker:.0f}" if worker else "–",
    ]


def ratios(rounds: Mapping[tuple[str, str], Sequence[Round]], ours: str) -> list[str]:
    """Ratios of our gateway to each peer, in requests per second and CPU per request."""
    lines: list[str] = []
    for (mode, name), runs in rounds.items():
        if name == ours or not median(runs, "rss_mb"):
            continue
        mine = rounds[mode, ours]
        if not all(run.count for run in runs):
            lines.append(f"{ours} / {name}, {mode}: none, as {name} finished no request in one of its rounds")
            continue
        rps, cpu = (median(mine, field) / median(runs, field) for field in ("rps", "cpu_us"))
        # Ratios within a round compare equal conditions, so their spread is the meaningful one.
        by_round = spread((a.rps / b.rps for a, b in zip(mine, runs, strict=False)), 2)
        lines.append(
            f"{ours} / {name}, {mode}: {rps:.2f} of its requests a second (round by round {by_round}), "
            f"{cpu:.3g} of its CPU a request"
        )
    return lines


def between(text: str, name: str, contents: str) -> str:
    """Replace the text between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`. Raises ValueError if a marker is
    missing."""
    first, last = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    if text.count(first) != 1 or text.count(last) != 1 or text.index(first) > text.index(last):
        raise ValueError(f"docs/benchmarks.md needs {first} and then {last}, once each")
    before, _, rest = text.partition(first)
    _, _, after = rest.partition(last)
    return f"{before}{first}\n{contents.strip()}\n{last}{after}"


def standalone(plot: Plot) -> str:
    """The plot as a standalone SVG file."""
    named = draw(plot, "plot").replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return named.replace(">", f">{STYLE}", 1) + "\n"


def write(name: str, contents: str, *, plots: Mapping[str, Plot] | None = None, doc: Path = DOC) -> None:
    """Write tables and plots to docs/benchmarks.md and docs/benchmarks/*.svg."""
    doc.write_text(between(doc.read_text(encoding="utf-8"), name, contents), encoding="utf-8")
    folder = doc.with_suffix("")
    folder.mkdir(exist_ok=True)
    for file, plot in (plots or {}).items():
        (folder / f"{file}.svg").write_text(standalone(plot), encoding="utf-8")


def rotated(arms: Sequence[Any], number: int) -> list[Any]:
    """Order of the items in round `number`: each goes first in turn, and every other round is reversed."""
    at = number // 2 % len(arms)
    turned = [*arms[at:], *arms[:at]]
    return turned[::-1] if number % 2 else turned
