"""The loop that accounting's tests run on."""

import pytest
from tests.loops import UVLOOP, Loops


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    """The gateway's."""
    return UVLOOP
