"""The image's entry point, equivalent to `python -m quarterdeck.simulator`."""

import sys

from quarterdeck.simulator.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
