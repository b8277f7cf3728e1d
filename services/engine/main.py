"""The image's entry point, equivalent to `python -m quarterdeck.engine`."""

import sys

from quarterdeck.engine.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
