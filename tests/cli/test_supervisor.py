"""The supervisor over fake processes: start and stop order, crashes and orphans."""

import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.running import Running, free_ports, running

from quarterdeck import processes

DRIVER = Path(__file__).with_name("drive_supervisor.py")


@contextmanager
def supervised(folder: Path, **options: list[str]) -> Iterator[Running]:
    ports = dict(zip(("engine", "worker", "gateway"), free_ports(3), strict=True))
    specs = {name: [ports.get(name, 0), *options.get(name, [])] for name in (*ports, "database", "models")}
    (folder / "processes.json").write_text(json.dumps(specs), encoding="utf-8")
    with running([sys.executable, str(DRIVER), str(folder)], os.environ) as program:
        yield program


def journal(folder: Path) -> list[str]:
    """`<process> <event>` lines in order."""
    return [line.rpartition(" ")[0] for line in (folder / "journal").read_text(encoding="utf-8").splitlines()]


def pid_of(folder: Path, event: str) -> int:
    lines = (folder / "journal").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in reversed(lines) if line.startswith(event)).split()[-1])


def test_it_starts_the_parts_in_order_and_ends_the_gateway_first(tmp_path: Path) -> None:
    with supervised(tmp_path) as program:
        program.until("usable: m")
        assert program.interrupt() == 0
    happened = journal(tmp_path)
    assert happened.index("database starts") < happened.index("worker starts")
    assert happened.index("models starts") < happened.index("engine starts")
    ends = [line for line in happened if line.endswith(" ends")]
    assert ends[0] == "gateway ends"
    assert sorted(ends) == ["engine ends", "gateway ends", "worker ends"]
    assert "all processes have exited" in program.output


def test_the_steps_of_preparing_models_are_shown(tmp_path: Path) -> None:
    with supervised(tmp_path) as program:
        program.until("usable: m")
        assert "one step" in program.output
        assert "another step" in program.output


def test_it_says_how_far_a_model_is_and_when_it_is_ready(tmp_path: Path) -> None:
    with supervised(tmp_path, engine=["--late-ready"]) as program:
        program.until("m: loading weights")
        program.until("m: ready")
        program.until("usable: m")


def test_a_part_that_dies_at_start_ends_the_run_with_its_last_lines(tmp_path: Path) -> None:
    with supervised(tmp_path, gateway=["--dies"]) as program:
        assert program.end() == 1
    assert "gateway exited with status 3" in program.output
    assert "the port is cursed" in program.output
    assert "all processes have exited" in program.output


def test_an_engine_that_dies_at_start_ends_the_run_with_its_last_lines(tmp_path: Path) -> None:
    with supervised(tmp_path, engine=["--dies"]) as program:
        assert program.end() == 1
    assert "the port is cursed" in program.output


def test_an_engine_that_fails_at_the_first_start_has_one_more_try(tmp_path: Path) -> None:
    with supervised(tmp_path, engine=["--fails-once"]) as program:
        program.until("engine    exited with status 1: restarting")
        program.until("usable: m")
        assert program.interrupt() == 0


def test_a_part_that_crashes_later_is_started_again(tmp_path: Path) -> None:
    with supervised(tmp_path) as program:
        program.until("usable: m")
        os.kill(pid_of(tmp_path, "worker starts"), signal.SIGKILL)
        program.until("worker    was killed by SIGKILL: restarting")
        program.until("worker    restarted")
        assert program.interrupt() == 0


def test_what_a_killed_engine_leaves_behind_is_ended_before_the_next_one(tmp_path: Path) -> None:
    with supervised(tmp_path, engine=["--orphan"]) as program:
        program.until("usable: m")
        orphan = int(next(line for line in journal(tmp_path) if "forgets" in line).split()[-1])
        assert processes.is_alive(orphan)
        os.kill(pid_of(tmp_path, "engine starts"), signal.SIGKILL)
        program.until("engine    restarted")
        assert not processes.is_alive(orphan)
        assert program.interrupt() == 0


def test_forgotten_grandchildren_are_ended_at_the_end(tmp_path: Path) -> None:
    with supervised(tmp_path, engine=["--orphan"]) as program:
        program.until("usable: m")
        orphan = int(next(line for line in journal(tmp_path) if "forgets" in line).split()[-1])
        assert program.interrupt() == 0
    assert not processes.is_alive(orphan)


def test_a_gateway_that_lost_records_at_its_end_is_named_and_sets_the_exit_status(tmp_path: Path) -> None:
    with supervised(tmp_path, gateway=["--ends-badly"]) as program:
        program.until("usable: m")
        assert program.interrupt() == 1
    assert f"gateway   exited with status 1 ({tmp_path}/gateway.log)" in program.output
    assert "worker    stopped" in program.output


def test_a_second_interrupt_does_not_wait_for_a_process_that_does_not_listen(tmp_path: Path) -> None:
    with supervised(tmp_path, gateway=["--deaf"]) as program:
        program.until("usable: m")
        program.process.send_signal(signal.SIGINT)
        program.until("waiting for requests in flight")
        assert program.interrupt() == 0
    assert "all processes have exited" in program.output


def test_the_doors_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    with supervised(tmp_path) as program:
        program.until("usable: m")
        specs = [pid_of(tmp_path, f"{name} starts") for name in ("engine", "worker", "gateway")]
        pidfds = [os.pidfd_open(pid) for pid in specs]
        program.process.kill()
        for pidfd in pidfds:
            assert select.select([pidfd], [], [], 10)[0], "still alive"
            os.close(pidfd)
    assert not any(processes.is_alive(pid) for pid in specs)


def test_what_gateway_and_worker_say_is_not_ready_is_shown_once_and_when_it_is_over(tmp_path: Path) -> None:
    with supervised(tmp_path) as program:
        program.until("usable: m")
        told = tmp_path / "journal.gateway.parts"
        told.write_text(json.dumps({"redis": "away", "config": "refused, keeping the previous one: x:3: y"}))
        (tmp_path / "journal.worker.parts").write_text(json.dumps({"database": "timed out"}))
        program.until("gateway   config: refused, keeping the previous one: x:3: y")
        program.until("worker    database: timed out")
        told.write_text(json.dumps({"redis": "ready", "config": "ready"}))
        program.until("gateway   redis: ready again")
        assert program.interrupt() == 0
    assert program.output.count("redis: away") == 1
