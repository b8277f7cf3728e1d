"""The image's entry point, equivalent to `python -m quarterdeck.worker`."""

import sys

from quarterdeck.worker.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
