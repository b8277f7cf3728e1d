"""Event loops for tests: uvloop as the gateway has it, asyncio's own as the worker has it, or both."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop

Loops = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]

UVLOOP: Loops = {"uvloop": uvloop.new_event_loop}
ASYNCIO: Loops = {"asyncio": asyncio.new_event_loop}
BOTH: Loops = {**ASYNCIO, **UVLOOP}
