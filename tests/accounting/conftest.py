"""The event loop of accounting's tests."""

import pytest
from tests.loops import UVLOOP, Loops


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    """uvloop, as in the gateway."""
    return UVLOOP
