"""The image's entry point: the same call as `python -m quarterdeck.gateway`."""

import sys

from quarterdeck.gateway.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
