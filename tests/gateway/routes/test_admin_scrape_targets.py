"""The engines' addresses for Prometheus' service discovery."""

from tests.gateway.fakes import ADMIN, USER, Client, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.routes.admin_scrape_targets import targets
from quarterdeck.inference.endpoints.endpoint import EndpointSpec

PATH = "/admin/prometheus/targets"


def test_a_server_is_one_target_with_its_path_and_labels() -> None:
    found = targets(
        [
            EndpointSpec("m#0", "m", "http://10.0.0.7:30001"),
            EndpointSpec("n#0", "n", "http://10.0.0.7:30001"),
            EndpointSpec("m#1", "m", "https://[fd00::7]/m"),
            EndpointSpec("hosted#0", "hosted", "https://api.example.com/v1", kind="openai"),
        ]
    )
    assert found == [
        {
            "targets": ["10.0.0.7:30001"],
            "labels": {"__scheme__": "http", "__metrics_path__": "/metrics", "model": "m", "endpoint": "m#0"},
        },
        {
            "targets": ["[fd00::7]:443"],
            "labels": {"__scheme__": "https", "__metrics_path__": "/m/metrics", "model": "m", "endpoint": "m#1"},
        },
    ]


async def test_it_is_a_list_for_admins_of_the_platform_only() -> None:
    app = create_app(parts())
    listed = await Client(app, key=ADMIN).get(PATH)
    assert (listed.status, type(listed.json)) == (200, list)
    refused = await Client(app, key=USER).get(PATH)
    assert (refused.status, refused.json["error"]["code"]) == (403, "admin_key_required")
