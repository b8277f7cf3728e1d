"""Reading quarterdeck.yaml: values, and errors with their lines."""

import os
import re
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import ConfigError, load, parse
from quarterdeck.settings.packaged import PACKAGED_CONFIG, config_path

GOOD = """\
models:
  - name: chat
    aliases: [gpt-4o-mini]
    endpoints:
      - url: http://127.0.0.1:9000/v1/
        model: upstream
        api_key_env: CHAT_KEY
    price:
      input: "0.15"
      output: "0.60"
limits:
  requests_per_minute: 60
keys:
  laptop:
    limits: {tokens_per_minute: 1000}
gateway:
  on_redis_down: deny
"""


def test_a_good_file_is_read() -> None:
    config = parse(GOOD)
    model = config.models[0]
    assert (model.name, model.aliases, model.endpoints[0].url) == ("chat", ("gpt-4o-mini",), "http://127.0.0.1:9000")
    assert model.price.input == Decimal("0.15")
    assert config.limits.requests_per_minute == 60
    assert config.keys["laptop"].limits.tokens_per_minute == 1000
    assert config.gateway.on_redis_down == "deny"


def test_the_packaged_file_is_good() -> None:
    config = load(PACKAGED_CONFIG)
    assert [model.name for model in config.models] == ["smollm2-135m-instruct", "all-minilm-l6-v2"]


def test_the_environment_names_another_file(tmp_path: Path) -> None:
    assert config_path(Environment.read({"HOME": "/h"})) == PACKAGED_CONFIG
    path = tmp_path / "mine.yaml"
    assert config_path(Environment.read({"HOME": "/h", "QUARTERDECK_CONFIG": str(path)})) == path


MISTAKES = {
    "no models": ("limits: {}\n", 1, "models: is required"),
    "nothing": ("", 1, "the file is empty: expected a mapping with `models:`"),
    "only comments": ("# models\n", 1, "the file is empty"),
    "a list": ("- a\n", 1, "expected a mapping with `models:`"),
    "a tab": ("models:\n\t- name: a\n", 2, "cannot start any token"),
    "an open quote": ('models:\n  - name: "a\n', 3, "found unexpected end of stream"),
    "an unknown field": (GOOD + "gatway: {}\n", 18, "gatway: unknown setting; did you mean 'gateway'?"),
    "an unknown field of a model": (
        GOOD.replace("    price:", "    prise:"),
        8,
        "models[0].prise: unknown setting; did you mean 'price'?",
    ),
    "a negative price": (GOOD.replace('"0.15"', '"-1"'), 9, "models[0].price.input: must be ≥ 0, not '-1'"),
    "a price that is no number": (
        GOOD.replace('"0.15"', "cheap"),
        9,
        "price.input: must be a number, not 'cheap'",
    ),
    "a price with too many places": (GOOD.replace('"0.15"', '"0.00000000001"'), 9, "no more than 9 decimal places"),
    "a limit of zero": (GOOD.replace("minute: 60", "minute: 0"), 12, "limits.requests_per_minute: must be > 0, not 0"),
    "a limit in words": (
        GOOD.replace("minute: 60", "minute: many"),
        12,
        "per_minute: must be a whole number",
    ),
    "an empty block": ("models: []\nlimits:\n", 2, "limits: must be a mapping, not empty"),
    "a deep limit": (GOOD.replace("1000", "-5"), 15, "keys.laptop.limits.tokens_per_minute: must be > 0, not -5"),
    "an unknown word": (GOOD.replace("deny", "maybe"), 17, "gateway.on_redis_down: must be allow or deny, not 'maybe'"),
    "a model without an endpoint": (
        "models:\n  - name: a\n  - name: b\n",
        2,
        "models[0]: model 'a' requires an `engine`",
    ),
    "a name with a blank": (GOOD.replace("name: chat", "name: my chat"), 2, "models[0].name: must match"),
    "a name that is a number": (
        GOOD.replace("name: chat", "name: 7"),
        2,
        "models[0].name: must be text, not 7",
    ),
    "an address without a scheme": (GOOD.replace("http://127.0.0.1:9000/v1/", "localhost:1"), 5, "must be http(s)://"),
    "an address with a key": (GOOD.replace("127.0.0.1:9000/v1/", "u:p@h"), 5, "models[0].endpoints[0].url: must be"),
    "an address with a wrong port": (GOOD.replace("9000", "99999"), 5, "models[0].endpoints[0].url: must be http"),
    "an address with an open bracket": (GOOD.replace("127.0.0.1:9000/v1/", "[::1"), 5, "models[0].endpoints[0].url"),
    "a key that is given twice": (GOOD + "limits: {}\n", 18, "limits: duplicate key"),
    "a limit that is given twice": (
        GOOD.replace("minute: 60", "minute: 60\n  requests_per_minute: 70"),
        13,
        "requests_per_minute: duplicate key",
    ),
    "a name that is given twice": (
        GOOD.replace("limits:\n  req", "  - name: chat\n    endpoints: [{url: 'http://h'}]\nlimits:\n  req"),
        11,
        "models: duplicate name 'chat'",
    ),
    "an alias that is a name": (
        GOOD.replace("[gpt-4o-mini]", "[other, chat]"),
        3,
        "models: duplicate name 'chat'",
    ),
    "an adapter that is a name": (
        "models:\n  - name: a\n    engine:\n      source: a\n      max_adapters: 1\n"
        "      adapters:\n        - {name: a, source: ./a}\n",
        7,
        "models: duplicate name 'a'",
    ),
    "an engine's mistake": (
        "models:\n  - name: a\n    engine:\n      source: a\n      quantization: int3\n",
        5,
        "models[0].engine.quantization: must be none, bitsandbytes",
    ),
}


@pytest.mark.parametrize(("text", "line", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"quarterdeck.yaml:{line}: "), first
    assert message in first


def test_a_missing_field_is_named_with_the_line_of_its_block() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("models:\n  - name: a\n    endpoints:\n      - model: b\n      - url: http://h\n        max_running: 0\n")
    assert str(caught.value).splitlines() == [
        "quarterdeck.yaml:4: models[0].endpoints[0].url: is required",
        "quarterdeck.yaml:6: models[0].endpoints[1].max_running: must be > 0, not 0",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "models: 2024-13-45\n",
        "models: &a [*a]\n",
        "models: " + "[" * 5000 + "]" * 5000 + "\n",
        "a\x00b: 1\n",
        "? [a, b]\n: 1\n",
        "models: !!python/object:os.system x\n",
        "models: *nobody\n",
    ],
)
def test_what_is_no_yaml_for_us_is_a_config_error_as_well(text: str) -> None:
    with pytest.raises(ConfigError, match=r"quarterdeck\.yaml"):
        parse(text)


LAUGHS = {
    "lists": "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)),
    "merges": "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 20)),
    "models": "x: &x [1, 2, 3, 4, 5, 6, 7, 8, 9]\ny: &y [*x, *x, *x, *x, *x, *x, *x, *x, *x]\n"
    + "z: &z [*y, *y, *y, *y, *y, *y, *y, *y, *y]\nmodels: ["
    + ", ".join(["*z"] * 500)
    + "]\n",
}


@pytest.mark.parametrize("text", LAUGHS.values(), ids=LAUGHS.keys())
@pytest.mark.timeout(10)
def test_aliases_that_stand_for_a_billion_values_are_refused_unexpanded(text: str) -> None:
    with pytest.raises(ConfigError, match="once its aliases are expanded"):
        parse(text)


def test_an_alias_may_be_used_often() -> None:
    config = parse(
        "models:\n"
        + "  - {name: m0, price: &price {input: '1', output: '2'}, endpoints: &where [{url: 'http://h'}]}\n"
        + "".join(f"  - {{name: m{n}, price: *price, endpoints: *where}}\n" for n in range(1, 300))
    )
    assert len(config.models) == 300


def test_of_many_problems_the_first_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("models:\n" + "  - {name: a, endpoints: [{url: 'http://h', no: 1}]}\n" * 5000)
    lines = str(caught.value).splitlines()
    assert len(lines) == 51 and lines[-1].endswith("more problems")


def test_only_a_regular_file_of_bounded_size_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    (tmp_path / "large.yaml").write_text("# " + "x" * 1024 * 1024)
    for path, why in (
        (pipe, "not a regular file"),
        (tmp_path / "large.yaml", "larger than"),
        (Path("/dev/zero"), "not a regular file"),
        (Path("a\0b"), "has a NUL character"),
    ):
        with pytest.raises(ConfigError, match=why):
            load(path)


def test_a_path_with_a_nul_is_refused_with_its_line() -> None:
    text = 'models:\n  - name: a\n    endpoints:\n      - {url: "http://h", api_key_file: "/run/\\0key"}\n'
    with pytest.raises(ConfigError, match=r"quarterdeck\.yaml:4: .*NUL"):
        parse(text)


def test_a_file_that_can_not_be_read_is_named_with_what_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, why in (
        (tmp_path / "absent.yaml", "there is no such file"),
        (tmp_path / "file" / "q.yaml", "there is no such file"),
        (tmp_path, "it is a folder, not a file"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: {why}; QUARTERDECK_CONFIG or `up --config` names the file")


def test_a_folder_that_is_read_again_and_again_keeps_no_descriptor(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ConfigError):
            load(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", r"/binary\.yaml: not UTF-8 text"),
        (b"models:\x00", r"^binary\.yaml: (control|special) characters are not allowed$"),
    ],
)
def test_a_file_that_is_no_text_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load(path)


def test_the_file_that_is_read_is_the_file_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("models: 7\n")
    with pytest.raises(ConfigError, match=r"^mine\.yaml:1: models: "):
        load(path)


def test_a_configuration_in_json_is_read_like_one_in_yaml() -> None:
    text = '{"models": [{"name": "a", "endpoints": [{"url": "http://x"}], "price": {"input": "0.10"}}]}'
    assert parse(text) == parse(yaml.safe_dump(yaml.safe_load(text)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"models": [],\n "models": []}', "2: models: duplicate key"),
        ('{"models": [],\n "gateway": {"retries": 9}}', "2: gateway.retries: must be ≤ 5, not 9"),
        ('{"models": [], "queue": {"max_wait_seconds": NaN}}', "queue.max_wait_seconds"),
        ("{models: [], nonsense: 1}", "1: nonsense: unknown setting"),
    ],
)
def test_a_problem_of_json_is_reported_by_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 50_000 + "]" * 50_000, "{a: " * 50_000, "- " * 50_000 + "x"])
def test_a_document_that_is_nested_without_end_is_refused(text: str) -> None:
    """libyaml composes recursively in C: it would end the process."""
    with pytest.raises(ConfigError):
        parse(text)
