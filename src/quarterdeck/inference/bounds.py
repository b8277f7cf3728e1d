"""The most tokens that a model's requests may have, as its configuration says. Pure."""

from collections.abc import Sequence

import msgspec

MAX_OUTPUT_TOKENS = 4096
"""The longest answer of a request without `max_tokens`, of a model whose context is unknown."""
IMAGE_TOKENS = 2048
"""Of one picture. Models scale pictures down to a bounded number of tiles."""


class Bounds(msgspec.Struct, frozen=True, gc=False):
    context: int | None = None
    """Tokens of prompt and answer together. None: unknown."""
    output: int = MAX_OUTPUT_TOKENS
    """Output tokens of a request that sets no limit."""
    is_sent: bool = True
    """Whether `output` may be sent to the endpoint as the request's limit. vLLM refuses a limit that its context has no
    room for, so it is not sent where the context is unknown."""
    image: int = IMAGE_TOKENS
    """Tokens of one picture."""


UNKNOWN = Bounds()


def widest(each: Sequence[Bounds]) -> Bounds:
    """The bounds of a request that any of these models may answer."""
    contexts = [bounds.context for bounds in each if bounds.context is not None]
    return Bounds(
        max(contexts) if len(contexts) == len(each) else None,
        max(bounds.output for bounds in each),
        all(bounds.is_sent for bounds in each),
        max(bounds.image for bounds in each),
    )
