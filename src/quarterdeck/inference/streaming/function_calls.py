"""An answer for a client that sent `functions`: the engine's `tool_calls` become the client's `function_call`.

At the very end: the meter, the cache and captured contents have seen the answer in today's form.
"""

import msgspec

from quarterdeck.inference.call import Reply
from quarterdeck.inference.streaming.mapped import MappedStream
from quarterdeck.protocol.legacy_functions import FunctionCallEvents, as_function_answer


def with_function_call(reply: Reply) -> Reply:
    """The reply, translated in place. A body that is not an answer stays as it is."""
    if reply.stream is not None:
        reply.stream = MappedStream(reply.stream, FunctionCallEvents())
        return reply
    try:
        reply.body = as_function_answer(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return reply
    return reply
