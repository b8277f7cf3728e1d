"""The image's entry point, equivalent to `python -m quarterdeck.operator`."""

import sys

from quarterdeck.operator.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
