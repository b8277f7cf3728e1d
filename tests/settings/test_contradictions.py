"""Settings that can't both be meant are named, with what to do; the defaults have none."""

import pytest

from quarterdeck.settings.config import Config
from quarterdeck.settings.contradictions import contradictions

MCP = {"label": "slow", "url": "https://example.com/mcp", "timeout_seconds": 400}


def test_the_defaults_have_none() -> None:
    assert contradictions(Config(models=())) == []


@pytest.mark.parametrize(
    ("section", "settings", "named"),
    [
        ("files", {"max_gb_per_org": 0.25}, ["files.max_file_mb", "files.max_upload_mb"]),
        ("files", {"max_gb_per_org": 1}, ["files.max_upload_mb"]),
        ("files", {"max_part_mb": 1, "max_upload_mb": 20_000}, ["files.max_part_mb"]),
        ("tools", {"max_seconds": 30}, ["tools.call_timeout_seconds"]),
        ("tools", {"mcp_servers": [MCP]}, ["tools.mcp_servers[slow].timeout_seconds"]),
        ("batches", {"idle_share": 0.1, "busy_share": 0.5}, ["batches.busy_share"]),
    ],
)
def test_each_is_named(section: str, settings: dict[str, object], named: list[str]) -> None:
    found = contradictions(Config.model_validate({"models": [], section: settings}))
    assert [text.partition(":")[0] for text in found] == named
    assert all("raise" in text or "lower" in text for text in found)
