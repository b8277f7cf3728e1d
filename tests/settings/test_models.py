"""Models and their external endpoints."""

import pytest
from pydantic import ValidationError

from quarterdeck.settings.models import EndpointConfig, ModelConfig


@pytest.mark.parametrize(
    ("url", "base"),
    [("http://h:1/v1", "http://h:1"), ("https://h/prefix/v1/", "https://h/prefix"), ("http://h", "http://h")],
)
def test_a_url_is_the_base_without_v1(url: str, base: str) -> None:
    assert EndpointConfig(url=url).url == base


@pytest.mark.parametrize(
    "url", ["h:1", "ftp://h", "http://", "http://u@h", "http://h?q", "http://h#f", "http://h:99999"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match=r"must be http\(s\)://host"):
        EndpointConfig(url=url)


@pytest.mark.parametrize("headers", [{"Authorization": "x"}, {"Host": "h"}, {"a b": "x"}, {"x": "\n"}, {"x": "é"}])
def test_headers_that_the_gateway_writes_itself_or_that_are_malformed_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=r"header '.*'"):
        EndpointConfig(url="http://h", headers=headers)


def test_a_model_requires_an_engine_or_an_endpoint() -> None:
    with pytest.raises(ValidationError, match="model 'a' requires an `engine` or at least one entry in `endpoints`"):
        ModelConfig(name="a")
