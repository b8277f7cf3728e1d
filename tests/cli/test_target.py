"""The options that name a platform elsewhere."""

from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from quarterdeck.cli import contexts
from quarterdeck.cli.__main__ import cli
from quarterdeck.cli.contexts import Context, Contexts, ContextsError
from quarterdeck.cli.target import Target, choose

KEY = "sk-qd-" + "a" * 40


def run(*arguments: str, input: str | None = None) -> tuple[Result, list[httpx.Request]]:
    """Run a command against a platform that lists no keys."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"object": "list", "data": [], "has_more": False})

    return CliRunner().invoke(cli, arguments, obj=httpx.MockTransport(answer), input=input), seen


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    (tmp_path / "key").write_text(f"{KEY}\n")
    return str(tmp_path / "key")


@pytest.mark.parametrize("url", ["https://llm.example.com", "https://llm.example.com/v1/"])
def test_a_platform_at_a_url_is_asked_with_the_key_of_the_file(url: str, key_file: str) -> None:
    done, [request] = run("--url", url, "--key-file", key_file, "keys", "list")
    assert done.exit_code == 0, done.output
    assert str(request.url).startswith("https://llm.example.com/admin/keys")
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_the_key_can_come_from_standard_input() -> None:
    done, [request] = run("--url", "http://gateway", "--key-file", "-", "keys", "list", input=f"{KEY}\n")
    assert done.exit_code == 0, done.output
    assert request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "http://gateway", "keys", "list"], "needs a key: --key, --key-file"),
        (["--url", "gateway", "keys", "list"], "--url must be a URL"),
        (["--url", "http://gateway", "--context", "prod", "keys", "list"], "do not go with it"),
        (["--key-file", "/tmp/key", "--key", "sk-x", "keys", "list"], "exclude each other"),
        (["--context", "prod", "up"], "works on this machine only"),
        (["--context", "prod", "env"], "use --url"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments: list[str], message: str) -> None:
    done, seen = run(*arguments)
    assert (done.exit_code, message in done.stderr, seen) == (2, True, []), done.output


@pytest.mark.parametrize("text", ["", "two words", "schlüssel"])
def test_a_file_that_holds_no_key_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    done, seen = run("--url", "http://gateway", "--key-file", str(tmp_path / "key"), "keys", "list")
    assert (done.exit_code, seen) == (1, [])
    assert "does not hold one key" in done.stderr


def test_a_cluster_without_kubectl_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done, _ = run("--context", "prod", "keys", "list")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: kubectl is not on PATH")


def test_the_doctor_of_a_cluster_without_kubectl_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done, _ = run("doctor", "--cluster")
    assert done.exit_code == 1
    assert done.stdout.startswith("missing Kubernetes API: kubectl is not on PATH")


A, B, C = "http://a", "http://b", "http://c"
SAVED = Contexts({"b": Context(B, "key-b"), "c": Context(C, "key-c")}, "c")
OPENAI = {"OPENAI_BASE_URL": f"{A}/v1", "OPENAI_API_KEY": "key-openai"}
OURS = {"QUARTERDECK_URL": A, "QUARTERDECK_KEY": "key-a"}


@pytest.mark.parametrize(
    ("options", "variables", "saved", "has_local", "url", "key"),
    [
        (Target(), {}, Contexts(), True, None, None),
        (Target(key="k"), {}, Contexts(), True, None, "k"),
        (Target(), {}, SAVED, True, C, "key-c"),
        (Target(context="b"), {}, SAVED, True, B, "key-b"),
        (Target(context="b", key="k"), {}, SAVED, True, B, "k"),
        (Target(context="local"), {}, SAVED, True, None, None),
        (Target(), OURS, SAVED, True, A, "key-a"),
        (Target(context="b"), OURS, SAVED, True, B, "key-b"),
        (Target(), {"QUARTERDECK_CONTEXT": "b"}, SAVED, True, B, "key-b"),
        (Target(), {"QUARTERDECK_CONTEXT": "local"}, SAVED, True, None, None),
        (Target(url=B), OURS, SAVED, True, B, "key-b"),
        (Target(url=f"{A}/v1"), OURS, SAVED, True, f"{A}/v1", "key-a"),
        (Target(url="http://stranger"), {**OURS, **OPENAI}, SAVED, True, "http://stranger", None),
        (Target(url="http://x"), {"QUARTERDECK_KEY": "k"}, Contexts(), True, "http://x", "k"),
        (Target(), OPENAI, Contexts(), False, f"{A}/v1", "key-openai"),
        (Target(), OPENAI, Contexts(), True, None, None),
        (Target(), OPENAI, SAVED, False, C, "key-c"),
        (Target(), {"OPENAI_API_KEY": "key-openai"}, Contexts(), False, None, None),
    ],
    ids=str,
)
def test_the_platform_that_is_meant(
    options: Target, variables: dict[str, str], saved: Contexts, has_local: bool, url: str | None, key: str | None
) -> None:
    found = choose(options, variables, saved, has_local=has_local)
    assert (found.url, found.key) == (url, key)
    assert not found.is_cluster


def test_a_context_that_is_not_saved_is_a_kubeconfigs() -> None:
    assert choose(Target(context="kind"), OURS, SAVED, has_local=True).is_cluster
    assert choose(Target(context="b", namespace="llm"), {}, SAVED, has_local=True).is_cluster
    with pytest.raises(ContextsError, match="no context is named 'gone'"):
        choose(Target(), {"QUARTERDECK_CONTEXT": "gone"}, SAVED, has_local=True)


def test_the_options_may_follow_the_command() -> None:
    done, [request] = run("keys", "list", "--url", "http://gateway", "--key", KEY)
    assert (done.exit_code, request.url.host) == (0, "gateway"), done.output
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_an_option_of_the_command_goes_before_the_platforms(tmp_path: Path) -> None:
    """`--key` of `usage` is a filter."""
    done, requests = run("--url", "http://gateway", "--key", KEY, "usage", "--key", "key_1", "--json")
    assert done.exit_code == 0, done.output
    assert requests[0].url.params["key"] == "key_1"


def test_commands_use_the_context_in_use(tmp_path: Path) -> None:
    contexts.write(tmp_path / "contexts.toml", Contexts({"prod": Context("http://prod", "sk-prod")}, "prod"))
    done, [request] = run("keys", "list")
    assert (done.exit_code, request.url.host) == (0, "prod"), done.output
    assert request.headers["authorization"] == "Bearer sk-prod"


def test_the_message_of_a_platform_that_is_away_names_where_its_url_comes_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUARTERDECK_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("QUARTERDECK_KEY", KEY)
    done = CliRunner().invoke(cli, ["models"])
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "cannot connect to http://127.0.0.1:9 (QUARTERDECK_URL)" in done.stderr
