"""An HTTP server for tests whose clients may hang up as they like: that is no error of a test's.

The standard one prints a traceback for it, from a thread. CPython 3.11 parses source for that, and two threads that
parse at once (pytest's own does, for a report) end the whole run with "AST constructor recursion depth mismatch".
"""

import sys
from http.server import ThreadingHTTPServer
from typing import Any


class QuietHTTPServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A file that was closed under its reader is a ValueError.
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            super().handle_error(request, client_address)
