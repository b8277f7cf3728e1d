"""A load test profile: a YAML file in, frozen values out. Pure.

A profile sets the traffic mix (`scenarios`, by weight), its timing (`arrivals` and `shape`) and the latency objectives
(`slo`). It does not name a target, so one profile runs against a laptop, a cluster or a hosted API.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from quarterdeck.load.analysis.objectives import Slo
from quarterdeck.load.run.shapes import Constant, Shape
from quarterdeck.settings.durations import Seconds


class ProfileError(Exception):
    """The profile is invalid; the message names the file, the field and the problem."""


class Part(BaseModel):
    """Base class of blocks: frozen, rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Scenario(Part):
    """Fields common to all scenarios."""

    weight: float = Field(default=1.0, gt=0)
    """Relative frequency."""
    input_tokens: int = Field(default=60, ge=1)
    """Approximate length of the user message; a trace's row overrides it."""
    max_tokens: int = Field(default=32, ge=1)
    """Limit of the answer's length; a trace's row overrides it."""


class Session(Scenario):
    """Multi-turn conversations; an arrival continues a waiting conversation or starts a new one."""

    turns: int = Field(default=4, ge=1)
    system_tokens: int = Field(default=300, ge=1)
    """Length of the system prompt. Conversations share it, so prefix caches can hit."""
    systems: int = Field(default=4, ge=1)
    """Number of distinct system prompts."""


class Embeddings(Scenario):
    """Embedding requests."""

    inputs: int = Field(default=4, ge=1)
    """Texts per request."""


class Rag(Scenario):
    """Long prompts of documents, some of which are far more popular than others."""

    documents: int = Field(default=200, ge=1)
    """Size of the document pool."""
    document_tokens: int = Field(default=150, ge=1)
    chosen: int = Field(default=6, ge=1)
    """Documents per prompt."""


class Tools(Scenario):
    """A chat with tools, not streamed."""

    max_tokens: int = Field(default=64, ge=1)
    tool_choice: Literal["auto", "required"] = "required"
    """`required`: an answer without a well-formed call is an error. `auto`: the model may answer in text."""


class Repeat(Scenario):
    """A few requests repeated at temperature 0, not streamed: hits for an exact-match cache."""

    prompts: int = Field(default=8, ge=1)


class Disconnect(Scenario):
    """A stream whose client disconnects."""

    after_pieces: int = Field(default=4, ge=0)
    max_tokens: int = Field(default=200, ge=1)


class SlowReader(Scenario):
    """A stream read slowly, through small buffers."""

    pause: Seconds = 0.05
    """Seconds between two reads."""
    max_tokens: int = Field(default=100, ge=1)


class Scenarios(Part):
    """The traffic mix. Names appear in locust's tables."""

    chat: Scenario | None = None
    """A chat, not streamed."""
    stream: Scenario | None = None
    """A chat, streamed."""
    session: Session | None = None
    embeddings: Embeddings | None = None
    rag: Rag | None = None
    tools: Tools | None = None
    repeat: Repeat | None = None
    disconnect: Disconnect | None = None
    slow_reader: SlowReader | None = None
    bad_key: Scenario | None = None
    """Requests with an unknown key, which must be answered with 401."""

    @property
    def chosen(self) -> dict[str, Scenario]:
        """The scenarios set in the file, by name."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: scenario for name, scenario in found.items() if scenario is not None}


class Trace(Part):
    """Arrivals from a CSV file with `seconds,input_tokens,output_tokens`, or Azure's or BurstGPT's columns."""

    file: Path
    speed: float = Field(default=1.0, gt=0)
    """Playback speed; 2: twice as fast as recorded."""


class Profile(Part):
    """A load test's profile."""

    name: str = "unnamed"
    seed: int = 1
    """Equal seeds send equal prompts at equal times."""
    arrivals: Literal["constant", "poisson", "trace", "users"] = "poisson"
    """constant, poisson, trace: an open loop; requests start on schedule, whether or not earlier ones are answered.

    users: a closed loop; each user waits for its answer before the next request, which hides a slow server's queue.
    """
    shape: Annotated[Shape, Field(discriminator="kind")] = Constant(level=10)
    """Arrivals per second over time; with `arrivals: users`, the number of users."""
    trace: Trace | None = None
    duration: Seconds = 60.0
    warmup: Seconds = 0.0
    """Seconds at the start that are recorded but excluded from the figures. Part of the duration."""
    drain: Seconds = 30.0
    """How long to wait for answers after the last arrival, in seconds."""
    timeout: Seconds = 60.0
    """Seconds of silence on a connection before the request fails with outcome `timeout`."""
    think: Seconds = 0.0
    """With `arrivals: users`: mean pause in seconds between answer and next request, exponentially distributed."""
    most_in_flight: int = Field(default=4000, ge=1)
    """Requests in flight per process. Arrivals beyond are not sent and count as errors (`not_sent`)."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Fields added to each chat request, such as vLLM's `ignore_eos: true` for answers of equal length."""
    slo: Slo = Slo()
    scenarios: Scenarios

    @model_validator(mode="after")
    def _is_whole(self) -> "Profile":
        if not self.scenarios.chosen:
            raise ValueError("scenarios: at least one is required")
        if (self.arrivals == "trace") != (self.trace is not None):
            raise ValueError("`arrivals: trace` and a `trace:` block require each other")
        if self.warmup >= self.length:
            raise ValueError("warmup must be shorter than the run")
        if self.shape.kind == "saturation" and self.arrivals not in ("constant", "poisson"):
            raise ValueError("`shape: saturation` requires `arrivals: constant` or `poisson`")
        return self

    @property
    def length(self) -> float:
        """Seconds from the first to the last possible arrival. Shapes with steps set it themselves."""
        return self.shape.length or self.duration


def read(file: Path) -> dict[str, Any]:
    """Read the file's values without validating them; resolve the trace's path. Raises ProfileError."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProfileError(f"{file}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ProfileError(f"{file}: expected a mapping")
    if isinstance(trace := values.get("trace"), dict) and "file" in trace:
        values["trace"] = {**trace, "file": file.parent / str(trace["file"])}
    return {"name": file.stem, **values}


def load(file: Path) -> Profile:
    """Read and validate a file. Raises ProfileError."""
    return make(read(file), str(file))


def make(values: dict[str, Any], where: str) -> Profile:
    """Validate the values as a profile. Raises ProfileError."""
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(word) for word in first["loc"]) or "profile"
        raise ProfileError(f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
