"""Pages of other origins that may call the gateway from a browser."""

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

ANY = "*"
EXPOSED = (
    *("x-request-id", "retry-after", "openai-processing-ms", "x-cache", "x-cache-key", "x-quarterdeck-budget"),
    "x-quarterdeck-prompt",
    *("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    *("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", "x-should-retry"),
)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.-]+(?::\d{1,5})?|[a-z][a-z0-9+.-]*://\[[0-9a-f:.]+\](?::\d{1,5})?")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class CorsConfig(BaseModel):
    """Cross-origin requests of browsers (CORS). Cookies are never involved: a page needs a key of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    origins: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    """Origins whose pages may call this gateway, such as `https://app.example.com`; `*`: all of them.

    Default: none. A key that a page sends can be read by everybody who opens the page. Probes and metrics need no key
    and are not covered.
    """
    expose_headers: tuple[str, ...] = EXPOSED
    """Headers of a response that a page may read. The default: request id, limits, retries and cache."""
    max_age_seconds: int = Field(default=600, ge=0, le=86_400)
    """How long a browser may keep the answer to a preflight request. 600: a removed origin is refused soon after."""

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        lower = tuple(origin.lower() for origin in origins)
        for origin in lower:
            if origin != ANY and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin. Write a scheme and a host, with a port where it is not the scheme's "
                    "own: https://app.example.com"
                )
        if ANY in lower and len(lower) > 1:
            raise ValueError("'*' includes all origins: leave the others out")
        return lower

    @field_validator("expose_headers")
    @classmethod
    def _are_header_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _HEADER.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a header")
        return names
