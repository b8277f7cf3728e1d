"""Bodies in flight fit into the container's memory, unless the file says otherwise."""

from pathlib import Path

import pytest
from tests.gateway.fakes import config

from quarterdeck.gateway.container_memory import MIB, fitted, memory_limit


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "536870912\n"}, 512 * MIB),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "536870912"}, 512 * MIB),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ({"memory.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_limit_is_read_from_either_version_of_cgroups(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path) == limit


@pytest.mark.parametrize(
    ("limit", "total", "per_key"), [(512 * MIB, 128, 32), (64 * MIB, 16, 4), (1, 1, 1), (8192 * MIB, 1024, 256)]
)
def test_a_small_container_takes_fewer_bodies(limit: int, total: int, per_key: int) -> None:
    gateway = fitted(config(), limit).gateway
    assert (gateway.max_body_mb_in_flight, gateway.max_body_mb_in_flight_per_key) == (total, per_key)


def test_what_the_file_states_stays() -> None:
    assert fitted(config(max_body_mb_in_flight=700), 64 * MIB).gateway.max_body_mb_in_flight == 700
    gateway = fitted(config(max_body_mb_in_flight_per_key=100), 64 * MIB).gateway
    assert (gateway.max_body_mb_in_flight, gateway.max_body_mb_in_flight_per_key) == (16, 100)


def test_without_a_limit_nothing_changes() -> None:
    plain = config()
    assert fitted(plain, None) is plain
