"""The commands' own words and decisions."""

import json
import shlex
import subprocess
import sys

import click
import pytest

from quarterdeck.cli import cache, chat, doctor, env, keys, readiness, table
from quarterdeck.cli.__main__ import COMMANDS, cli
from quarterdeck.cli.credentials import Credentials

MINE = Credentials("http://127.0.0.1:8000/v1", "sk-qd-api", "sk-qd-admin")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from quarterdeck.cli.__main__ import cli; cli(['--help'], standalone_mode=False);"
        "print(sorted(m for m in sys.modules if m.partition('.')[0] in"
        " {'pydantic', 'httpx', 'sqlalchemy', 'yaml', 'asyncio', 'openai'}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "doctor" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_it_says_of_itself(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.short_help == COMMANDS[name]


def test_env_quotes_what_a_shell_would_take_apart() -> None:
    text = env.exports(Credentials("http://h/v1", "a'b $(rm -rf /)", "c"))
    words = [shlex.split(line) for line in text.splitlines()]
    assert words == [["export", "OPENAI_BASE_URL=http://h/v1"], ["export", "OPENAI_API_KEY=a'b $(rm -rf /)"]]


def test_credentials_do_not_show_their_keys() -> None:
    assert "sk-qd" not in repr(MINE)


def test_a_new_key_asks_for_what_was_said_and_no_more() -> None:
    assert keys.request_of("ci", {"team": None, "models": (), "admin": False}) == {"name": "ci"}
    options = {"team": "a", "models": ("m",), "expires_in_days": 3, "admin": True, "max_tokens": 5}
    assert keys.request_of("ci", options) == {
        "name": "ci",
        "team": "a",
        "models": ["m"],
        "expires_in_days": 3,
        "admin": True,
        "limits": {"max_tokens": 5},
    }


def events(*bodies: object) -> list[str]:
    return [f"data: {json.dumps(body)}" for body in bodies]


def test_chat_takes_the_text_out_of_a_stream() -> None:
    first = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
    pieces = [{"choices": [{"delta": {"content": text}}]} for text in "ab"]
    deltas = events(first, pieces[0], {"choices": []}, pieces[1])
    assert list(chat.texts([": ping", "", *deltas, "data: [DONE]"])) == ["a", "b"]


def test_chat_says_what_an_error_event_says() -> None:
    with pytest.raises(click.ClickException, match="the engine is gone"):
        list(chat.texts(events({"error": {"message": "the engine is gone"}})))


def test_chat_does_not_take_a_cut_stream_for_an_answer() -> None:
    with pytest.raises(click.ClickException, match="cut off"):
        list(chat.texts(events({"choices": [{"delta": {"content": "a"}}]})))


def test_the_cache_is_told_in_a_line() -> None:
    held = {"entries": 3, "bytes": 3 * 2**20 // 2, "max_bytes": 64 * 2**20, "is_on": True}
    assert cache.told(held) == "3 answers, 1.5 of 64 MiB"
    assert "turns it on for no model" in cache.told(held | {"is_on": False})


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table.columns(("A", "B"), [("long", "x"), ("s", "")]) == "A     B\nlong  x\ns"


def test_only_changes_are_told() -> None:
    loading = readiness.read({"endpoints": [{"model": "m", "state": "starting", "detail": "loading"}]}, ["m"])
    ready = readiness.read({"endpoints": [{"model": "m", "state": "ready", "detail": ""}]}, ["m"])
    assert readiness.changes({}, loading) == [("m", "loading")]
    assert readiness.changes(loading, loading) == []
    assert readiness.changes(loading, ready) == [("m", "ready")]
    assert readiness.changes(ready, loading) == [("m", "not ready any more: loading")]


def test_a_model_is_ready_when_one_of_its_replicas_is() -> None:
    body = {"endpoints": [{"model": "m", "state": "starting"}, {"model": "m", "state": "ready"}]}
    assert readiness.read(body, ["m"])["m"].is_ready


def test_a_strange_answer_of_the_engine_door_is_a_model_that_starts() -> None:
    for body in (None, [], {"endpoints": None}, {"endpoints": ["x"]}):
        assert not readiness.read(body, ["m"])["m"].is_ready


def test_doctor_knows_what_each_processor_computes_in() -> None:
    assert "bfloat16" in doctor.arithmetic(frozenset({"avx2", "avx512_bf16"})).what
    assert "float32" in doctor.arithmetic(frozenset({"avx2"})).what
    assert doctor.arithmetic(frozenset()).mark == "missing"


def test_doctor_says_how_to_get_what_is_missing() -> None:
    assert doctor.room("memory", 4, 8, "buy some") == doctor.Finding("missing", "memory: 4 GiB", "buy some")
    assert doctor.python_version((3, 10)).mark == "missing"
    assert doctor.python_version((3, 11)).mark == "ok"
