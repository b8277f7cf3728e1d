"""The image's entry point, equivalent to `python -m quarterdeck.load`."""

import sys

from quarterdeck.load.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
