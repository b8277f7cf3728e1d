"""The image's entry point, equivalent to `python -m quarterdeck.gateway`."""

import sys

from quarterdeck.gateway.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
