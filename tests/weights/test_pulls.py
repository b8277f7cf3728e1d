"""Downloads in the background."""

import asyncio
import os
from pathlib import Path

from tests.hub import Hub, tiny_model

from quarterdeck.weights.downloads import Downloads
from quarterdeck.weights.pulls import Pulls


async def test_a_pull_runs_in_the_background_and_is_listed_to_its_end(tmp_path: Path) -> None:
    with Hub().running() as hub:
        commit = hub.add("org/model", tiny_model())
        mine = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        variables = {**mine, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        pulls = Pulls(Downloads(variables, tmp_path / "cache"))
        assert pulls.start("org/model")["state"] == "downloading"
        pulls.start("org/model")  # the same one
        pulls.start("org/none")
        while any(row["state"] == "downloading" for row in pulls.listing()):  # noqa: ASYNC110  # children work
            await asyncio.sleep(0.05)
        model, none = pulls.listing()
        assert (model["state"], model["revision"], model["done"]) == ("complete", commit, model["total"])
        assert none["state"] == "failed" and none["error"]["code"] == "repository_not_found"
        assert not pulls.cancel("org/other")
        hub.add("org/large", tiny_model(os.urandom(9 << 20)))
        hub.hold_after = 1 << 20
        pulls.start("org/large")
        await asyncio.to_thread(hub.is_held.wait, 100)
        assert pulls.cancel("org/large")
        assert not pulls.cancel("org/large")
        assert [row["state"] for row in pulls.listing()] == ["complete", "failed", "cancelled"]
        hub.hold_after = None
        hub.go_on.set()
        assert pulls.start("org/large")["state"] == "downloading"  # while the cancelled one still ends
        while any(row["state"] == "downloading" for row in pulls.listing()):  # noqa: ASYNC110  # a child works
            await asyncio.sleep(0.05)
        assert pulls.listing()[-1]["state"] == "complete"
        await pulls.close()
