"""The Ray Serve application of one Model, as the operator writes it into a RayService's `serveConfigV2`.

`engine/kuberay/serve_app.py` builds it inside the Ray cluster; `engine/kuberay/door.py` reads it back from Serve.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from quarterdeck.settings.engine import EngineConfig, Task

IMPORT_PATH = "quarterdeck.engine.kuberay.serve_app:build"
APPLICATION = "engine"
"""Name of the application, and of its only deployment."""


class _Arguments(BaseModel):
    """Unknown members are ignored: an engine's image may be older than the operator."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class ASGIAppSource(_Arguments):
    """An engine that is an ASGI app in the image, such as the simulated one."""

    factory: str
    """`module:function`; it is called with `options`."""
    options: dict[str, Any] = {}
    """Options of the engine, as JSON."""


class ServeArguments(_Arguments):
    """`args` of the application. A change of them restarts the replicas."""

    model: str
    """The name by which the engine serves the model."""
    task: Task = "generate"
    """What the engine does."""
    has_adapters: bool = False
    """Whether adapters can be loaded into the replicas."""
    engine: EngineConfig | None = None
    """vLLM."""
    app: ASGIAppSource | None = None
    """Another engine."""

    @model_validator(mode="after")
    def _has_one_engine(self) -> Self:
        if (self.engine is None) == (self.app is None):
            raise ValueError("one of engine and app must be set")
        return self
