"""What a load test is: a YAML file in, frozen values out. Pure.

Who asks what (`scenarios`, by weight), when (`arrivals` and `shape`), and what a good answer is (`slo`). The file says
nothing of the target: the same profile is run against a laptop, a cluster and somebody else's server.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from quarterdeck.load.durations import Seconds
from quarterdeck.load.run.shapes import Constant, Shape


class ProfileError(Exception):
    """The profile can't be used; the message names the file, the field and what is wrong."""


class Part(BaseModel):
    """A frozen block of the file that refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Slo(Part):
    """What a good answer is, in milliseconds. What is not set is not asked for."""

    ttft_ms: float | None = None
    """From when the schedule wanted the request to its first token."""
    itl_ms: float | None = None
    """The mean gap between two tokens of a stream."""
    total_ms: float | None = None
    """From when the schedule wanted the request to its end."""


class Asking(Part):
    """What all scenarios have."""

    weight: float = Field(default=1.0, gt=0)
    """How often, beside the others."""
    input_tokens: int = Field(default=60, ge=1)
    """About as long is what the user says; a trace's row says it otherwise."""
    max_tokens: int = Field(default=32, ge=1)
    """The most the answer may have; a trace's row says it otherwise."""


class Session(Asking):
    """A conversation of several turns; each arrival is the next turn of one that waits, or a new one."""

    turns: int = Field(default=4, ge=1)
    system_tokens: int = Field(default=300, ge=1)
    """The system prompt, which conversations share: what a prefix cache lives on."""
    systems: int = Field(default=4, ge=1)
    """How many different system prompts there are."""


class Embeddings(Asking):
    """Texts to vectors."""

    inputs: int = Field(default=4, ge=1)
    """Texts a request."""


class Rag(Asking):
    """A long prompt of documents, of which some are asked for far more often than others."""

    documents: int = Field(default=200, ge=1)
    """How many there are to choose from."""
    document_tokens: int = Field(default=150, ge=1)
    chosen: int = Field(default=6, ge=1)
    """How many stand in a prompt."""


class Tools(Asking):
    """A question with tools, plain."""

    max_tokens: int = Field(default=64, ge=1)
    tool_choice: Literal["auto", "required"] = "required"
    """`required`: an answer without a well-formed call is an error. `auto`: the model may just talk."""


class Repeat(Asking):
    """The same few requests again and again, plain, at temperature 0: what an exact-match cache answers."""

    prompts: int = Field(default=8, ge=1)


class Disconnect(Asking):
    """A stream whose reader hangs up."""

    after_pieces: int = Field(default=4, ge=0)
    max_tokens: int = Field(default=200, ge=1)


class SlowReader(Asking):
    """A stream read slowly, with small buffers."""

    pause: Seconds = 0.05
    """Between two pieces."""
    max_tokens: int = Field(default=100, ge=1)


class Scenarios(Part):
    """Who asks. The names are those of the users in locust's tables."""

    chat: Asking | None = None
    """A chat, plain."""
    stream: Asking | None = None
    """A chat, streamed."""
    session: Session | None = None
    embeddings: Embeddings | None = None
    rag: Rag | None = None
    tools: Tools | None = None
    repeat: Repeat | None = None
    disconnect: Disconnect | None = None
    slow_reader: SlowReader | None = None
    bad_key: Asking | None = None
    """A key that nobody gave out: 401 is what it deserves."""

    @property
    def chosen(self) -> dict[str, Asking]:
        """Those that are in the file, by name."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: asking for name, asking in found.items() if asking is not None}


class Trace(Part):
    """Arrivals from a file: `seconds,input_tokens,output_tokens`, or the columns of Azure's and BurstGPT's traces."""

    file: Path
    speed: float = Field(default=1.0, gt=0)
    """2: twice as fast as it was."""


class Profile(Part):
    """A load test."""

    name: str = "unnamed"
    seed: int = 1
    """The same seed asks the same questions at the same moments."""
    arrivals: Literal["constant", "poisson", "trace", "users"] = "poisson"
    """constant, poisson, trace: an open loop, requests start when the schedule says so, answered or not.

    users: a closed loop, each user waits for its answer before it asks again (and so hides a slow server's queue).
    """
    shape: Annotated[Shape, Field(discriminator="kind")] = Constant(level=10)
    """Arrivals a second over time; with `arrivals: users`, users."""
    trace: Trace | None = None
    duration: Seconds = 60.0
    warmup: Seconds = 0.0
    """So long at the start is asked, recorded and left out of the numbers. Part of the duration."""
    drain: Seconds = 30.0
    """So long after the last arrival answers are waited for."""
    timeout: Seconds = 60.0
    """A connection that is silent for so long is given up: outcome `timeout`."""
    think: Seconds = 0.0
    """With `arrivals: users`: a user's pause between an answer and its next question, exponential around this mean."""
    most_in_flight: int = Field(default=4000, ge=1)
    """Of each process. An arrival beyond is not sent and counts as an error, `not_sent`: the client is at its end."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Fields added to each chat request, for instance `ignore_eos: true` (vLLM) for answers of equal length."""
    slo: Slo = Slo()
    scenarios: Scenarios

    @model_validator(mode="after")
    def _is_whole(self) -> "Profile":
        if not self.scenarios.chosen:
            raise ValueError("scenarios: at least one is needed")
        if (self.arrivals == "trace") != (self.trace is not None):
            raise ValueError("`arrivals: trace` and a `trace:` block belong together")
        if self.warmup >= self.length:
            raise ValueError("warmup must be shorter than the run")
        if self.shape.kind == "saturation" and self.arrivals not in ("constant", "poisson"):
            raise ValueError("`shape: saturation` needs `arrivals: constant` or `poisson`")
        return self

    @property
    def length(self) -> float:
        """Seconds from the first to the last possible arrival. Shapes with steps know it themselves."""
        return self.shape.length or self.duration


def read(file: Path) -> dict[str, Any]:
    """The file's values, not judged yet; a trace's path becomes one from here. Raises ProfileError."""
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProfileError(f"{file}: {' '.join(str(error).split())}") from None
    if not isinstance(told, dict):
        raise ProfileError(f"{file}: a mapping was expected")
    if isinstance(trace := told.get("trace"), dict) and "file" in trace:
        told["trace"] = {**trace, "file": file.parent / str(trace["file"])}
    return {"name": file.stem, **told}


def load(file: Path) -> Profile:
    """Raises ProfileError."""
    return make(read(file), str(file))


def make(told: dict[str, Any], where: str) -> Profile:
    """A profile from values. Raises ProfileError."""
    try:
        return Profile.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(word) for word in first["loc"]) or "profile"
        raise ProfileError(f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
