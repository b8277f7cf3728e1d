"""The image's entry point, equivalent to `python -m quarterdeck.worker`."""

import signal
import sys

# This is process 1, which gets no signal that it has no handler for: a pod that is deleted while it still imports would
# last as long as its grace period.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

from quarterdeck.worker.__main__ import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
