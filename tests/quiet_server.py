"""An HTTP server for tests that ignores clients' disconnects.

The standard server prints a traceback for one, from a thread. CPython 3.11 parses source for that, and two threads that
parse at once (pytest parses for its reports) end the run with "AST constructor recursion depth mismatch".
"""

import sys
from http.server import ThreadingHTTPServer
from typing import Any


class QuietHTTPServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Reading a file that was closed meanwhile raises ValueError.
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            super().handle_error(request, client_address)
