"""Other spellings of a path that clients send. Pure.

A client makes a URL of a base URL and a path, and there are two opinions on which of them has the `/v1`. So there are
`/v1/v1/models` and `/models`, and `//v1/models` and `/v1/models/` for slashes. Azure's clients begin with `/openai`.
Only paths of OpenAI's API are spelled in other ways, never those of the admin API, of probes or of metrics.
"""

import re
from collections.abc import Callable

_SLASHES = re.compile("//+")
_PREFIX = re.compile("(?:/openai)?((?:/v1)*)(?=/)")
MODELS = "/v1/models"


def spelled(path: str, is_known: Callable[[str], bool]) -> str | None:
    """The path that is meant. None: the path is right as it stands, or none of ours."""
    plain = _SLASHES.sub("/", path).rstrip("/")
    prefix = _PREFIX.match(plain)
    rest = plain[prefix.end() :] if prefix else plain
    for each in (plain, f"/v1{rest}", rest):
        if each != path and (is_known(each) or each == MODELS or each.startswith(f"{MODELS}/")):
            return each
    return None
