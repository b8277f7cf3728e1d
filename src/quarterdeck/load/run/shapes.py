"""Load over time: arrivals per second (in a closed loop, users) as a function of seconds. Pure."""

import itertools
import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from quarterdeck.settings.durations import Seconds

Level = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class _Shape(BaseModel):
    """Base class: frozen, rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @property
    def length(self) -> float | None:
        """Seconds. None: the profile's `duration`."""
        return None

    def at(self, seconds: float) -> float:
        """The level at a time after the start."""
        raise NotImplementedError


class Constant(_Shape):
    """A constant level."""

    kind: Literal["constant"] = "constant"
    level: Level

    def at(self, seconds: float) -> float:
        return self.level


class Steps(_Shape):
    """Levels in sequence, each held equally long."""

    kind: Literal["steps"] = "steps"
    levels: Annotated[tuple[Level, ...], Field(min_length=1)]
    each: Seconds = 30.0

    @property
    def length(self) -> float:
        return self.each * len(self.levels)

    def at(self, seconds: float) -> float:
        return self.levels[min(int(seconds / self.each), len(self.levels) - 1)]


class Spike(_Shape):
    """A base level with one temporary peak."""

    kind: Literal["spike"] = "spike"
    base: Level
    peak: Level
    start: Seconds = 30.0
    lasts: Seconds = 10.0

    def at(self, seconds: float) -> float:
        return self.peak if self.start <= seconds < self.start + self.lasts else self.base


class Soak(_Shape):
    """A level reached by a slow ramp and then held, so that later effects are not caused by the start."""

    kind: Literal["soak"] = "soak"
    level: Level
    ramp: Seconds = 60.0

    def at(self, seconds: float) -> float:
        return self.level * min(1.0, seconds / self.ramp) if self.ramp else self.level


class Diurnal(_Shape):
    """A repeating day-and-night cycle; starts at night."""

    kind: Literal["diurnal"] = "diurnal"
    low: Level
    high: Level
    period: Annotated[Seconds, Field(gt=0)] = 600.0

    def at(self, seconds: float) -> float:
        return self.low + (self.high - self.low) * (1 - math.cos(2 * math.pi * seconds / self.period)) / 2


class Saturation(_Shape):
    """Rising steps until the server no longer keeps up; the run then ends and prints the knee."""

    kind: Literal["saturation"] = "saturation"
    start: Positive = 10.0
    factor: Annotated[float, Field(gt=1)] = 1.25
    """The ratio between the levels of consecutive steps."""
    each: Annotated[Seconds, Field(gt=0)] = 10.0
    most: Positive = 2000.0
    """The level of the last step, if no knee is found before."""

    @property
    def levels(self) -> tuple[float, ...]:
        rising = (self.start * self.factor**i for i in itertools.count())
        return (*itertools.takewhile(lambda level: level < self.most, rising), self.most)

    @property
    def length(self) -> float:
        return self.each * len(self.levels)

    def at(self, seconds: float) -> float:
        return self.levels[min(int(seconds / self.each), len(self.levels) - 1)]


Shape = Constant | Steps | Spike | Soak | Diurnal | Saturation
