"""An engine client with short time-outs."""

import pytest
from tests.net.upstream import SOON

from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.net.http_client import HttpClient
from quarterdeck.settings.live import Live


@pytest.fixture
def engines(client: HttpClient) -> EngineClient:
    return EngineClient(client, Live(SOON))
