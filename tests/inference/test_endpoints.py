"""Who answers for a model: what a reload keeps."""

from quarterdeck.inference.endpoints import StaticEndpoints
from quarterdeck.settings.config import Config, parse


def test_a_reload_keeps_the_load_and_the_failures_of_an_endpoint_that_is_still_there() -> None:
    def config(*ports: int) -> Config:
        endpoints = ", ".join(f"{{url: 'http://127.0.0.1:{port}'}}" for port in ports)
        return parse(f"models:\n- name: m\n  endpoints: [{endpoints}]\n")

    before = StaticEndpoints(config(1, 2), {})
    kept = before.all()[1]
    kept.in_flight, kept.failures = 3, 2
    after = StaticEndpoints(config(2, 3), {}, before=before)
    assert after.all()[0] is kept
    assert [(e.in_flight, e.failures) for e in after.all()] == [(3, 2), (0, 0)]
