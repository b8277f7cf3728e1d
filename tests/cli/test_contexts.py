"""Contexts: their file, and the commands that change it."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quarterdeck.cli import contexts
from quarterdeck.cli.__main__ import cli
from quarterdeck.cli.contexts import Context, Contexts, ContextsError

KEY = "sk-qd-" + "a" * 40


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "contexts.toml"


def run(*words: str, input: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["context", *words], input=input)


def test_a_context_is_saved_where_only_its_user_can_read_it(file: Path) -> None:
    done = run("set", "prod", "--url", "https://llm.example.com/v1/", "--key-file", "-", input=f"{KEY}\n")
    assert done.exit_code == 0, done.output
    assert KEY not in done.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert contexts.read(file).named == {"prod": Context("https://llm.example.com", KEY)}


def test_contexts_are_used_listed_changed_and_deleted(file: Path) -> None:
    run("set", "a", "--url", "http://a", "--key", "sk-a", "--use")
    run("set", "b", "--url", "http://b", "--key", "sk-b")
    listed = json.loads(run("list", "--json").stdout)
    assert [(each["name"], each["current"]) for each in listed] == [("local", False), ("a", True), ("b", False)]
    assert "sk-" not in run("list").output
    assert run("current").stdout == "http://a (context a)\n"
    run("set", "a", "--key", "sk-new")
    assert contexts.read(file).named["a"] == Context("http://a", "sk-new")
    assert run("use", "b").exit_code == 0
    run("delete", "b")
    assert contexts.read(file) == Contexts({"a": Context("http://a", "sk-new")}, None)
    assert run("use", "local").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("use", "none"), "no context is named 'none' (saved: none)"),
        (("delete", "none"), "no context is named 'none'"),
        (("set", "x"), "a new context needs --url"),
        (("set", "x", "--url", "gateway"), "must be a URL"),
        (("set", "x", "--url", "http://h"), "a key is needed"),
        (("set", "local", "--url", "http://h", "--key", "sk"), "is the platform on this machine"),
        (("set", "a b", "--url", "http://h", "--key", "sk"), "is not a name"),
        (("set", "x", "--url", "http://h", "--key", "two words"), "the key is not a key"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_saves_nothing(words: tuple[str, ...], message: str, file: Path) -> None:
    done = run(*words)
    assert done.exit_code in (1, 2)
    assert message in done.stderr.splitlines()[-1]
    assert not file.exists()


def test_another_url_needs_its_own_key(file: Path) -> None:
    """The key of a platform must not go to another."""
    run("set", "a", "--url", "http://a", "--key", "sk-a")
    assert "a key is needed" in run("set", "a", "--url", "http://other").stderr
    assert contexts.read(file).named["a"].url == "http://a"


@pytest.mark.parametrize("text", ["[contexts", "contexts = 3", "[contexts]\na = {url = 'http://a'}\n"])
def test_a_broken_file_is_named(text: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(ContextsError, match="cannot read"):
        contexts.read(file)
    assert run("list").exit_code == 1


def test_a_file_that_others_can_read_is_reported(file: Path) -> None:
    run("set", "a", "--url", "http://a", "--key", "sk-a")
    file.chmod(0o644)
    assert f"chmod 600 {file}" in run("list").stderr
