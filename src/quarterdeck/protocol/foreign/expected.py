"""What the answer of another server is measured by: the request. Pure."""

import msgspec

from quarterdeck.protocol.requests import AnyRequest, EmbeddingRequest, choice_count

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"
EMBEDDINGS_PATH = "/v1/embeddings"


class NotAnAnswerError(ValueError):
    """A whole body that is JSON, but not an answer to the request."""


class Expected(msgspec.Struct, frozen=True):
    """The answer to a request."""

    path: str
    choices: int = 1
    """How many the request asks for. Of embeddings, how many inputs it has; 0: not known."""
    model: str = ""
    """The model's name, for a server that leaves it out."""
    encoding: str = "float"
    """Of embeddings: `float` or `base64`."""


def expected_answer(path: str, request: AnyRequest, model: str) -> Expected:
    if not isinstance(request, EmbeddingRequest):
        return Expected(path, choice_count(request), model)
    inputs = request.input
    count = 1 if isinstance(inputs, str) or (inputs and isinstance(inputs[0], int)) else len(inputs)
    return Expected(path, count, model, "base64" if request.encoding_format == "base64" else "float")
