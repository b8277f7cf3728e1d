"""The door notices a dead Ray."""

from quarterdeck.engine.door import missing_daemons
from quarterdeck.processes import Process


def test_a_ray_without_one_of_its_two_daemons_is_lost() -> None:
    raylet, gcs = (Process(pid, 1, "S", 1, name) for pid, name in ((2, "raylet"), (3, "gcs_server")))
    assert missing_daemons([raylet, gcs]) == ""
    assert missing_daemons([gcs]) == "raylet"
    assert missing_daemons([]) == "gcs_server and raylet"
