"""A simulated engine: OpenAI-speaking, deterministic, without a model. For tests, laptops, load tests, CI clusters.

Plain ASGI on uvicorn; standard library and msgspec. In process: `create_app(SimulatorConfig(...))`; as a process:
`python -m quarterdeck.simulator`. What it does and every option: docs/simulator.md.
"""

from quarterdeck.simulator.app import create_app
from quarterdeck.simulator.config import SimulatorConfig

__all__ = ["SimulatorConfig", "create_app"]
