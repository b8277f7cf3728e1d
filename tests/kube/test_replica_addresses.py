"""What a compromised engine door may list, and what of it is called."""

import pytest

from quarterdeck.kube.replica_addresses import is_replica

HOSTS = frozenset({"10.244.0.7", "fd00::7"})


@pytest.mark.parametrize("url", ["http://10.244.0.7:30000", "http://10.244.0.7:31000/", "http://[fd00::7]:30005"])
def test_a_port_of_replicas_at_an_own_pod_is_one(url: str) -> None:
    assert is_replica(url, HOSTS)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http://10.244.0.8:30000",
        "http://10.244.0.7",
        "http://10.244.0.7:6379",
        "http://10.244.0.7:29999",
        "http://10.244.0.7:31001",
        "http://10.244.0.7:99999",
        "http://10.244.0.7:x",
        "https://10.244.0.7:30000",
        "http://10.244.0.7:30000/admin",
        "http://10.244.0.7:30000?x",
        "http://10.244.0.7:30000#x",
        "http://a@10.244.0.7:30000",
        "http://10.244.0.7@evil.example:30000",
        "http://evil.example:30000",
        "http://[fd00::8]:30000",
        "http://[fd00::7:30000",
        "http://0x0af40007:30000",
        "file:///etc/passwd",
    ],
)
def test_nothing_else_is(url: str) -> None:
    assert not is_replica(url, HOSTS)


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "[::1]", "[fe80::1]", "0.0.0.0", "224.0.0.1"])
def test_without_a_list_of_pods_addresses_of_the_own_machine_are_none(host: str) -> None:
    assert not is_replica(f"http://{host}:30000", None)
    assert is_replica("http://10.244.0.8:30000", None)
