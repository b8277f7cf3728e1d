"""`quarterdeck models` gives the reason why an adapter is missing."""

from quarterdeck.cli.models import _detail


def test_an_adapter_shows_its_model_and_why_it_is_missing() -> None:
    pirate = {"id": "pirate", "root": "pirate", "parent": "chat"}
    assert _detail(pirate, {}) == "adapter of chat"
    assert _detail(pirate, {"pirate": {"detail": "its folder is empty"}}) == "adapter of chat: its folder is empty"
    assert _detail({"id": "gpt", "root": "chat", "parent": ""}, {}) == "alias of chat"
