"""`quarterdeck chat` against a fake gateway: one prompt, and a conversation with its commands."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from quarterdeck.cli import chat_session
from quarterdeck.cli.__main__ import cli
from quarterdeck.cli.chat import first_chat_model
from quarterdeck.cli.chat_answer import Asker
from quarterdeck.cli.chat_session import Session, converse, read_prompt


class Gateway:
    """Answers each chat with `answers`, a delta each; the model `away` is refused."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answers: list[dict[str, str]] = [{"reasoning_content": "hm"}, {"content": "Par"}, {"content": "is\x1b[2J"}]

    def handle(self, request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/readyz":
                return httpx.Response(200, json={"models": {"chat": {"state": "ready", "detail": "simulated"}}})
            case "/v1/models":
                return httpx.Response(200, json={"data": [{"id": "chat"}, {"id": "big"}, {"id": "away"}]})
            case "/admin/requests/req_1":
                return httpx.Response(200, json={"cost": "0.002"})
        body = json.loads(request.content)
        self.requests.append(body)
        if body["model"] == "away":
            return httpx.Response(503, json={"error": {"message": "The model 'away' has failed."}})
        events = [{"choices": [{"delta": delta}]} for delta in self.answers]
        events.append({"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}})
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        return httpx.Response(200, text=text, headers={"x-request-id": "req_1"})

    def run(self, *words: str, input: str | None = None) -> Result:
        arguments = ["--url", "http://gateway", "--key", "sk-x", "chat", *words]
        return CliRunner().invoke(cli, arguments, obj=httpx.MockTransport(self.handle), input=input)

    def session(self, system: str | None = None) -> Session:
        client = httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(self.handle))
        return Session(Asker(client, {"model": "chat"}, admin_key="sk-x", shows_stats=False), system)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def test_the_answer_is_on_stdout_and_its_reasoning_on_stderr(gateway: Gateway) -> None:
    done = gateway.run("What", "is it?", "-s", "Be brief.")
    assert (done.exit_code, done.stdout, done.stderr) == (
        0,
        "Paris\\x1b[2J\n",
        "chat is simulated: its answers are made up\nhm\n\n",
    )
    assert gateway.requests[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?"},
    ]


def test_stats_show_tokens_and_cost(gateway: Gateway) -> None:
    assert "4 + 2 tokens" in gateway.run("hi", "--stats").stderr
    assert "$0.002]" in gateway.run("hi", "--stats").stderr


def test_an_answer_can_be_had_as_json(gateway: Gateway) -> None:
    found = json.loads(gateway.run("--json", input="hi").stdout)
    assert found["usage"] == {"input_tokens": 4, "output_tokens": 2}
    assert (found["model"], found["reasoning"], found["request_id"]) == ("chat", "hm", "req_1")


def test_without_a_prompt_and_a_terminal_it_is_a_usage_error(gateway: Gateway) -> None:
    assert gateway.run(input="").exit_code == 2
    assert gateway.requests == []


def test_the_first_ready_model_is_used_else_one_that_starts() -> None:
    models = {"e": {"task": "embed", "state": "ready"}, "a": {"state": "starting"}, "b": {"state": "ready"}}
    assert first_chat_model(models) == "b"
    assert first_chat_model({**models, "b": {"state": "unavailable"}}) == "a"
    with pytest.raises(click.ClickException, match="no chat model is ready \\(b\\)"):
        first_chat_model({"b": {"state": "unavailable"}})


def test_a_conversation_remembers_and_its_commands_work(gateway: Gateway, tmp_path: Path) -> None:
    session, saved = gateway.session("Be brief."), tmp_path / "chat.json"
    lines = iter(["one", "", "/model big", "two", "/retry", "/system -", "/stats", "three", f"/save {saved}", "/bye"])
    converse(session, read=lambda _: next(lines))
    counts = [(body["model"], [each["role"][0] for each in body["messages"]]) for body in gateway.requests]
    assert counts == [
        ("chat", ["s", "u"]),
        ("big", ["s", "u", "a", "u"]),
        ("big", ["s", "u", "a", "u"]),
        ("big", ["u", "a", "u", "a", "u"]),
    ]
    kept = json.loads(saved.read_text())
    assert (kept["model"], len(kept["messages"])) == ("big", 6)
    session.command(f"/save {tmp_path / 'chat.md'}")
    assert (tmp_path / "chat.md").read_text().startswith("## user\n\none\n")
    session.command("/clear")
    assert session.messages == []


def test_a_command_that_does_not_work_is_one_line_and_the_conversation_goes_on(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    session = gateway.session()
    wrong = ["/retry", "/nope", "/model none", "/save /nonexistent/x", "/save"]
    lines = iter([*wrong, "/model away", "hi", "/model chat", "/bye"])
    converse(session, read=lambda _: next(lines))
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    assert len(errors) == 6
    assert "has failed" in errors[-1]
    assert session.messages == []
    session.command("/retry")
    assert session.messages[0]["content"] == "hi"


def test_an_interrupted_answer_is_kept_as_far_as_it_came(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    session = gateway.session()

    def interrupted(lines: Iterator[str]) -> Iterator[Any]:
        yield chat_session_piece
        raise KeyboardInterrupt

    from quarterdeck.cli.chat_stream import Piece

    chat_session_piece = Piece("text", "Par")
    monkeypatch.setattr("quarterdeck.cli.chat_answer.pieces", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.ask("hi")
    assert [each["content"] for each in session.messages] == ["hi", "Par"]


def test_a_prompt_may_have_several_lines() -> None:
    for lines, prompt in (
        (["one"], "one"),
        (["one\\", "two"], "one\ntwo"),
        (['"""', "one", "two", '"""'], "one\ntwo"),
        (['"""one', 'two"""'], "one\ntwo"),
    ):
        given = iter(lines)
        assert read_prompt(lambda _, given=given: next(given)) == prompt


def test_help_names_every_command(gateway: Gateway) -> None:
    text = gateway.session().command("/help")
    assert text == chat_session.HELP
    assert all(f"/{name}" in text for name in ("model", "system", "retry", "stats", "save", "clear", "bye"))
