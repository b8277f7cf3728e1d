"""`quarterdeck bench` with a fake load process, and its pure parts."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from tests.cli.running import running

from quarterdeck.cli import bench, credentials

NOTHING = dict.fromkeys(bench.Options.__slots__) | {"seed": 1}


def options(**values: Any) -> bench.Options:
    return bench.Options(**(NOTHING | values))


def test_without_a_profile_the_defaults_are_asked_for() -> None:
    values = bench.load_arguments(options())
    assert dict(zip(values[::2], values[1::2], strict=True)) == {
        "--duration": "60s",
        "--warmup": "5s",
        "--arrivals": "poisson",
        "--slo": "ttft_ms=500,itl_ms=50",
        "--input-tokens": "200",
        "--max-tokens": "64",
        "--rate": "5",
    }


def test_a_profile_holds_but_for_what_is_said_otherwise() -> None:
    assert bench.load_arguments(options(profile="p.yaml", max_tokens=9)) == ["--max-tokens", "9", "--profile", "p.yaml"]


def test_streams_at_a_time_are_no_arrivals() -> None:
    values = bench.load_arguments(options(streams=4))
    assert values[values.index("--users") + 1] == "4"
    assert "--rate" not in values and "--arrivals" not in values


@pytest.mark.parametrize("values", [{"rate": "5", "streams": 2}, {"arrivals": "poisson", "streams": 2}])
def test_what_cannot_both_be_meant_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(click.UsageError):
        bench.load_arguments(options(**values))


def test_a_baseline_never_sees_the_targets_key() -> None:
    main, baseline = bench.servers("http://a", options(key_env="A", baseline="http://b", model="m"), {"A": "secret"})
    assert (main.key, baseline and baseline.key, baseline and baseline.model) == ("secret", "none", "m")
    assert "secret" not in repr(main)
    both = options(baseline="http://b", baseline_key_env="B", baseline_model="n")
    main, baseline = bench.servers("http://a", both, {"B": "other"})
    assert (main.key, baseline and baseline.key, baseline and baseline.model) == (None, "other", "n")
    with pytest.raises(ValueError, match="environment variable A is not set"):
        bench.servers("http://a", options(key_env="A"), {})


def test_the_openai_key_is_the_default_except_for_the_local_platform() -> None:
    variables = {"OPENAI_API_KEY": "sk-1"}
    both = options(baseline="http://b")
    main, baseline = bench.servers("http://a", both, variables)
    assert (main.key, baseline and baseline.key) == ("sk-1", "none")
    main, _ = bench.servers("http://a", both, variables, is_local=True)
    assert main.key is None


# ---- the whole command -----------------------------------------------------------------------------------------------


class Fake:
    """A fake Python of the load environment that records its arguments."""

    def __init__(self, folder: Path, **values: Any) -> None:
        self._folder = folder
        self.out = folder / "out"
        script = Path(__file__).with_name("fake_load.py").read_text(encoding="utf-8")
        self.python = folder / "python"
        self.python.write_text(f"#!{sys.executable}\n{script}", encoding="utf-8")
        self.python.chmod(0o755)
        (folder / "fake.json").write_text(json.dumps(values), encoding="utf-8")

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
    assert "target    9 s  answered 5/s" in program.output
    assert "stream  45" not in program.output, "the rounds' own tables are not shown"
    assert "stream  45" in (fake.out / "2-main.log").read_text(encoding="utf-8")


def test_without_a_variable_the_openai_key_is_sent_but_never_to_the_local_platform(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    command, environ = fake.command()
    environ |= {"OPENAI_API_KEY": "sk-1", "QUARTERDECK_STATE": str(tmp_path / "state")}
    with running(command, environ) as program:
        assert program.end() == 0
    assert [call["key"] for call in fake.calls] == ["sk-1"]
    (tmp_path / "state").mkdir(mode=0o700)
    credentials.ensure(tmp_path / "state", "http://a/v1")
    shutil.rmtree(fake.out)
    with running(command, environ) as program:
        assert program.end() == 0
    assert fake.calls[-1]["key"] is None, "the load test reads this user's key from the state folder"


def test_a_target_that_refuses_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    fake = Fake(tmp_path, error="http://a/v1")
    with running(*fake.command()) as program:
        assert program.end() == 1
    assert program.lines[-1] == "Error: target could not be measured: it refuses connections"
    assert len(program.lines) == 2
    assert not fake.out.exists()


def test_a_baseline_that_refuses_does_not_take_the_targets_rows_along(tmp_path: Path) -> None:
    fake = Fake(tmp_path, error="http://b/v1")
    with running(*fake.command("--baseline", "http://b/v1")) as program:
        assert program.end() == 1
    assert program.lines[-1] == "Error: baseline could not be measured: it refuses connections"
    assert (fake.out / "rounds" / "1-main").is_dir()


def test_an_end_without_words_names_its_log(tmp_path: Path) -> None:
    fake = Fake(tmp_path, status=7)
    with running(*fake.command()) as program:
        assert program.end() == 1
    assert program.lines[-1].endswith(f"stream  45  (see {fake.out}/1-main.log)")


def test_ctrl_c_ends_the_child_early_and_still_reports(tmp_path: Path) -> None:
    fake = Fake(tmp_path, waits=True)
    with running(*fake.command("--baseline", "http://b/v1")) as program:
        program.until("it waits")
        assert program.interrupt() == 130
    assert "bench     stopped early" in program.output
    assert program.lines[-2] == f"{fake.out}/report.html"
    assert len(fake.calls) == 1


def test_an_earlier_bench_is_not_mixed_with_a_new_one(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    (fake.out / "rounds").mkdir(parents=True)
    with running(*fake.command()) as program:
        assert program.end() == 1
    assert "already holds results" in program.output
