from pathlib import Path

import msgspec
import pytest

from quarterdeck.simulator.config import AT_RUN_TIME, SimulatorConfig
from quarterdeck.simulator.options import IGNORED, from_mapping, make_parser, parse, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("80ms", 0.08), ("1.5s", 1.5), ("1m30s", 90), ("250", 0.25), (100, 0.1), ("0", 0), ("5us", 5e-6)],
)
def test_durations(text: str | float, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "fast", "5 parsecs", "1s2"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


def test_the_command_line_is_read() -> None:
    line = """--model m --served-model-name a b --time-to-first-token 80ms --max-num-seqs 7 --no-enable-kvcache
        --failure-types cut=5 429 --enforce-eager --tensor-parallel-size 2"""
    config = parse(line.split())
    assert config == SimulatorConfig(
        model="m",
        served_model_name=["a", "b"],
        time_to_first_token=0.08,
        max_num_seqs=7,
        enable_kvcache=False,
        failure_types=["cut=5", "429"],
    )


def test_several_models_are_one_process() -> None:
    config = parse(["--model", "one", "--model", "two", "--embedding-model", "three"])
    assert config.tasks == {"one": "generate", "two": "generate", "three": "embed"}
    assert parse(["--task", "embed", "--model", "one", "--model", "two"]).tasks == {"one": "embed", "two": "embed"}
    assert parse(["--embedding-model", "only"]).tasks == {"only": "embed"}


def test_a_file_has_the_same_names_and_the_command_line_goes_first(tmp_path: Path) -> None:
    file = tmp_path / "simulator.yaml"
    file.write_text(
        "model: filed\nmax-num-seqs: 3\nlog-http: true\n"
        "latencies:\n  time-to-first-token: 2s\nkvcache:\n  block-size: 32\n"
    )
    config = parse(["--config", str(file), "--max-num-seqs", "9"])
    assert config == SimulatorConfig(model="filed", max_num_seqs=9, time_to_first_token=2.0, block_size=32)


@pytest.mark.parametrize(
    "options",
    [
        {"time-to-first-token-std-dev": "50ms", "time-to-first-token": "100ms"},
        {"kv-cache-size": 2, "block-size": 16},
        {"mode": "sing"},
        {"max-num-seqs": 0},
        {"unheard-of": 1},
        {"time-to-first-token": "soon"},
    ],
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        from_mapping(options)


def test_a_wrong_option_ends_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--time-to-first-token", "soon"])
    assert "'soon' is not a duration" in capsys.readouterr().err


def test_help_names_every_option() -> None:
    help_text = make_parser().format_help()
    for field in msgspec.structs.fields(SimulatorConfig):
        assert f"--{field.encode_name}" in help_text


def test_run_time_options_are_options() -> None:
    assert {field.name for field in msgspec.structs.fields(SimulatorConfig)} >= AT_RUN_TIME
    assert not set(IGNORED) & {field.encode_name for field in msgspec.structs.fields(SimulatorConfig)}


def test_the_page_names_every_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    for field in msgspec.structs.fields(SimulatorConfig):
        assert f"`{field.encode_name}`" in page
