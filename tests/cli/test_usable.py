"""The text that `up` shows once the platform can be used."""

from pathlib import Path

from quarterdeck.cli.credentials import Credentials
from quarterdeck.cli.usable import Banner

USER = Credentials("http://127.0.0.1:8000/v1", "sk-user", "sk-admin")


def banner(**changes: bool) -> Banner:
    return Banner(USER, Path("/state"), Path("/bin/quarterdeck"), **changes)


def test_it_has_what_a_client_needs() -> None:
    text = banner().text("chat")
    assert text.startswith("Chat is ready: chat\n")
    assert "API key    sk-user   (stored in /state/credentials)" in text
    assert "-H 'Authorization: Bearer sk-user'" in text
    assert "sk-admin" not in text


def test_a_text_that_is_kept_has_no_key() -> None:
    text = banner(shows_key=False).text("chat")
    assert "sk-" not in text
    assert "API key    in /state/credentials" in text
    assert '"Authorization: Bearer $OPENAI_API_KEY"' in text


def test_simulated_answers_are_called_so() -> None:
    assert "(simulated: its answers are made up)" in banner(is_simulated=True).text("chat").splitlines()[0]


def test_without_a_chat_model_there_is_no_request_to_paste() -> None:
    text = banner().text(None)
    assert text.startswith("The platform is up.\n") and "curl" not in text
