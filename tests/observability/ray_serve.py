"""A real Ray with Serve and one replica, a simulated engine behind our application. Run by the engine's Python.

Arguments: a folder for Ray's session. Prints one line of JSON: Prometheus' targets, and the replica's URL.
"""

import json
import os
import secrets
import sys
import time

from quarterdeck.engine.scrape_targets import scrape_targets
from quarterdeck.settings.ray import RAY_VARIABLES

os.environ.update(RAY_VARIABLES)
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)

import ray  # noqa: E402  # reads the variables
from ray import serve  # noqa: E402
from ray.serve.context import _get_global_client  # noqa: E402

from quarterdeck.engine.kuberay.serve_app import build  # noqa: E402

for last in (False, True):  # Ray gives a node 30 s to register: too few on a busy machine with cold files
    try:
        ray.init(
            address="local",
            num_cpus=1,
            object_store_memory=80 << 20,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=sys.argv[1],
        )
        break
    except Exception:
        ray.shutdown()
        if last:
            raise
serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": 0})
engine = {"factory": "quarterdeck.simulator.app:create_app_from_options", "options": {"model": "tiny"}}
serve.run(build({"model": "tiny", "app": engine}), name="tiny", route_prefix="/tiny")
replicas = []
while not replicas:
    details = _get_global_client().get_serve_details()
    groups = details.get("target_groups") or []
    replicas = [target for group in groups if group["app_name"] == "tiny" for target in group["targets"]]
    time.sleep(0.2)
found = {"targets": scrape_targets(ray.nodes(), None), "port": replicas[0]["port"]}
print(json.dumps(found), flush=True)
sys.stdin.read()  # until the test closes it
serve.shutdown()
ray.shutdown()
