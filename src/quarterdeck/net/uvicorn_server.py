"""uvicorn inside a process that handles signals itself."""

import contextlib
from collections.abc import Iterator

import uvicorn


class EmbeddedServer(uvicorn.Server):
    """Leaves signals to the process; it is stopped by `should_exit`.

    uvicorn's own handling raises the signal again after a graceful shutdown, so that the process would die of it
    instead of exiting with status 0.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
