"""Fixtures of the simulated engine's tests."""

from collections.abc import Callable, Iterator

import pytest
from tests.simulator.harness import Process


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Start simulator processes with given options; they are killed at the end of the test."""
    processes: list[Process] = []

    def start_one(*options: str) -> Process:
        processes.append(Process(*options))
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()
