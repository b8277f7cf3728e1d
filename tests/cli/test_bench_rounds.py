"""The order of load runs in `quarterdeck bench`."""

from pathlib import Path

from quarterdeck.cli import bench_rounds
from quarterdeck.cli.bench_rounds import BenchServer

MAIN = BenchServer("main", "http://a/v1", "m", None)


OTHER = BenchServer("baseline", "http://b/v1", "m", "none")


def test_every_second_round_begins_with_the_other_one_and_both_have_the_rounds_seed() -> None:
    todo = bench_rounds.order(MAIN, OTHER, 3, seed=7)
    assert [(one.folder, one.seed) for one in todo] == [
        ("rounds/1-main", 7),
        ("rounds/1-baseline", 7),
        ("rounds/2-baseline", 8),
        ("rounds/2-main", 8),
        ("rounds/3-main", 9),
        ("rounds/3-baseline", 9),
    ]
    assert [one.folder for one in bench_rounds.order(MAIN, None, 1, seed=7)] == ["rounds/1-main"]


def test_both_are_asked_by_the_same_words() -> None:
    first, second, *_ = bench_rounds.order(MAIN, OTHER, 1, seed=7)
    a, b = (bench_rounds.command_line(Path("p"), one, Path("out"), ["--rate", "5"]) for one in (first, second))
    assert a[a.index("--seed") : -3] == b[b.index("--seed") : -3] == ["--seed", "7", "--rate", "5"]
    assert [word for word in a if word not in b] == ["http://a/v1", "out/rounds/1-main"]
