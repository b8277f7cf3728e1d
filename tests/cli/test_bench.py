"""`quarterdeck bench` around a child that is not there, and its pure parts."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from tests.cli.running import running

from quarterdeck.cli import bench, load_environment, rounds
from quarterdeck.cli.load_environment import LoadEnvironmentError, Place
from quarterdeck.cli.rounds import Server
from quarterdeck.settings.environment import Environment

MAIN = Server("main", "http://a/v1", "m", None)
OTHER = Server("baseline", "http://b/v1", "m", "none")
NOTHING = dict.fromkeys(bench.Options.__slots__) | {"seed": 1}


def options(**told: Any) -> bench.Options:
    return bench.Options(**(NOTHING | told))


# ---- the order of things ---------------------------------------------------------------------------------------------


def test_every_second_round_begins_with_the_other_one_and_both_have_the_rounds_seed() -> None:
    todo = rounds.order(MAIN, OTHER, 3, seed=7)
    assert [(one.folder, one.seed) for one in todo] == [
        ("rounds/1-main", 7),
        ("rounds/1-baseline", 7),
        ("rounds/2-baseline", 8),
        ("rounds/2-main", 8),
        ("rounds/3-main", 9),
        ("rounds/3-baseline", 9),
    ]
    assert [one.folder for one in rounds.order(MAIN, None, 1, seed=7)] == ["rounds/1-main"]


def test_both_are_asked_by_the_same_words() -> None:
    first, second, *_ = rounds.order(MAIN, OTHER, 1, seed=7)
    a, b = (rounds.words(Path("p"), one, Path("out"), ["--rate", "5"]) for one in (first, second))
    assert a[a.index("--seed") : -3] == b[b.index("--seed") : -3] == ["--seed", "7", "--rate", "5"]
    assert [word for word in a if word not in b] == ["http://a/v1", "out/rounds/1-main"]


def test_without_a_profile_the_defaults_are_asked_for() -> None:
    told = bench.schedule(options())
    assert dict(zip(told[::2], told[1::2], strict=True)) == {
        "--duration": "60s",
        "--warmup": "5s",
        "--arrivals": "poisson",
        "--slo": "ttft_ms=500,itl_ms=50",
        "--input-tokens": "200",
        "--max-tokens": "64",
        "--rate": "5",
    }


def test_a_profile_holds_but_for_what_is_said_otherwise() -> None:
    assert bench.schedule(options(profile="p.yaml", max_tokens=9)) == ["--max-tokens", "9", "--profile", "p.yaml"]


def test_streams_at_a_time_are_no_arrivals() -> None:
    told = bench.schedule(options(streams=4))
    assert told[told.index("--users") + 1] == "4"
    assert "--rate" not in told and "--arrivals" not in told


@pytest.mark.parametrize("told", [{"rate": "5", "streams": 2}, {"arrivals": "poisson", "streams": 2}])
def test_what_cannot_both_be_meant_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(click.UsageError):
        bench.schedule(options(**told))


def test_a_baseline_never_sees_the_targets_key() -> None:
    main, baseline = bench.servers("http://a", options(key_env="A", baseline="http://b", model="m"), {"A": "secret"})
    assert (main.key, baseline and baseline.key, baseline and baseline.model) == ("secret", "none", "m")
    assert "secret" not in repr(main)
    both = options(baseline="http://b", baseline_key_env="B", baseline_model="n")
    main, baseline = bench.servers("http://a", both, {"B": "other"})
    assert (main.key, baseline and baseline.key, baseline and baseline.model) == (None, "other", "n")
    with pytest.raises(ValueError, match="the variable A is not set"):
        bench.servers("http://a", options(key_env="A"), {})


# ---- the other python ------------------------------------------------------------------------------------------------


def environment(**variables: str) -> Environment:
    return Environment.read({"HOME": "/nowhere", **variables})


def test_the_load_environment_is_the_one_named_the_one_beside_or_ours(tmp_path: Path) -> None:
    place = Place(tmp_path / ".envs" / "core", Path("/own/python"), has_locust=True)
    assert load_environment.find(environment(), place) == Path("/own/python")
    place.beside.parent.mkdir(parents=True)
    place.beside.touch()
    assert load_environment.find(environment(), place) == tmp_path / ".envs" / "load" / "bin" / "python"
    assert load_environment.find(environment(QUARTERDECK_LOAD_PYTHON="/a/python"), place) == Path("/a/python")


def test_without_locust_and_without_a_checkout_one_line_tells_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LoadEnvironmentError, match=r"pip install 'quarterdeck\[load\]'"):
        load_environment.ensure(environment(), Place(tmp_path, Path("/p"), has_locust=False), print)


def checkout(tmp_path: Path, maker: str) -> Place:
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments" / "make.py").write_text(maker, encoding="utf-8")
    return Place(tmp_path / ".envs" / "core", Path(sys.executable), has_locust=False)


def test_in_a_checkout_it_is_made(tmp_path: Path) -> None:
    maker = "import pathlib, sys; p = pathlib.Path(__file__).parents[1] / '.envs' / sys.argv[1] / 'bin' / 'python'\n"
    place = checkout(tmp_path, maker + "p.parent.mkdir(parents=True); p.touch()\n")
    said: list[str] = []
    assert load_environment.ensure(environment(), place, said.append) == place.beside
    assert len(said) == 1


def test_where_it_cannot_be_made_the_makers_reason_is_told(tmp_path: Path) -> None:
    place = checkout(tmp_path, "import sys; print('[  1.0s] load    error: no network'); sys.exit(1)\n")
    with pytest.raises(LoadEnvironmentError, match=r"error: no network\nInstead: pip install"):
        load_environment.ensure(environment(), place, lambda _: None)


# ---- the whole command -----------------------------------------------------------------------------------------------


class Fake:
    """A python of the load environment that only notes how it was called."""

    def __init__(self, folder: Path, **told: Any) -> None:
        self._folder = folder
        self.out = folder / "out"
        script = Path(__file__).with_name("fake_load.py").read_text(encoding="utf-8")
        self.python = folder / "python"
        self.python.write_text(f"#!{sys.executable}\n{script}", encoding="utf-8")
        self.python.chmod(0o755)
        (folder / "fake.json").write_text(json.dumps(told), encoding="utf-8")

    def command(self, *words: str) -> tuple[list[str], dict[str, str]]:
        environ = {**os.environ, "QUARTERDECK_LOAD_PYTHON": str(self.python), "A_KEY": "secret"}
        environ.pop("QUARTERDECK_LOAD_KEY", None)
        command = [sys.executable, "-m", "quarterdeck.cli", "bench", "http://a/v1", *words, "--out", str(self.out)]
        return command, environ

    @property
    def calls(self) -> list[dict[str, Any]]:
        text = (self._folder / "calls.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def test_rounds_are_run_in_order_with_their_keys_and_the_report_is_shown(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    with running(*fake.command("--model", "m", "--key-env", "A_KEY", "--baseline", "http://b/v1")) as program:
        assert program.end() == 0
    names = ["1-main", "1-baseline", "2-baseline", "2-main"]
    assert [Path(call["words"][-2]).name for call in fake.calls] == names
    assert [call["key"] for call in fake.calls] == ["secret", "none", "none", "secret"]
    assert not [word for call in fake.calls for word in call["words"] if "secret" in word]
    assert program.lines[-2:] == [f"{fake.out}/report.html", ""]
    assert "target    9 s  answered 5/s" in program.told
    assert "stream  45" not in program.told, "the rounds' own tables are not told"
    assert "stream  45" in (fake.out / "2-main.log").read_text(encoding="utf-8")


def test_a_target_that_refuses_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    fake = Fake(tmp_path, error="http://a/v1")
    with running(*fake.command()) as program:
        assert program.end() == 1
    assert program.lines[-1] == "Error: target was not measured: it refuses connections"
    assert len(program.lines) == 2
    assert not fake.out.exists()


def test_a_baseline_that_refuses_does_not_take_the_targets_rows_along(tmp_path: Path) -> None:
    fake = Fake(tmp_path, error="http://b/v1")
    with running(*fake.command("--baseline", "http://b/v1")) as program:
        assert program.end() == 1
    assert program.lines[-1] == "Error: baseline was not measured: it refuses connections"
    assert (fake.out / "rounds" / "1-main").is_dir()


def test_an_end_without_words_names_its_log(tmp_path: Path) -> None:
    fake = Fake(tmp_path, status=7)
    with running(*fake.command()) as program:
        assert program.end() == 1
    assert program.lines[-1].endswith(f"stream  45  (all of it: {fake.out}/1-main.log)")


def test_ctrl_c_ends_the_child_early_and_still_reports(tmp_path: Path) -> None:
    fake = Fake(tmp_path, waits=True)
    with running(*fake.command("--baseline", "http://b/v1")) as program:
        program.until("it waits")
        assert program.interrupt() == 130
    assert "bench     ended early" in program.told
    assert program.lines[-2] == f"{fake.out}/report.html"
    assert len(fake.calls) == 1


def test_an_earlier_bench_is_not_mixed_with_a_new_one(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    (fake.out / "rounds").mkdir(parents=True)
    with running(*fake.command()) as program:
        assert program.end() == 1
    assert "holds an earlier bench" in program.told
