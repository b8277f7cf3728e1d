"""A simulated engine: a deterministic server of the OpenAI protocol without a model, for tests, laptops and load tests.

Plain ASGI on uvicorn; standard library and msgspec. In process: `create_app(SimulatorConfig(...))`; as a process:
`python -m quarterdeck.simulator`. Behaviour and options: docs/simulator.md.

* app, server, client_connection: HTTP. routes: one function per path. protocol: vLLM's request and response bodies.
* engine: the parts and their state. scheduling: queue, KV cache, latency. model: tokenizer and text. metrics: /metrics.
* config, options: what can be set. faults: errors on demand.
"""

from quarterdeck.simulator.app import create_app
from quarterdeck.simulator.config import SimulatorConfig

__all__ = ["SimulatorConfig", "create_app"]
