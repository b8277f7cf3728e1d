"""Shared memory is found in the memory maps of its users, and removed after them."""

from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from quarterdeck.engine.shared_memory import remove, segments
from quarterdeck.processes import Process

MAPS = """\
7f00-7f01 rw-s 00000000 00:1a 77  /dev/shm/psm_1a2b3c
7f02-7f03 rw-s 00000000 00:1a 78  /dev/shm/psm_gone (deleted)
7f04-7f05 r-xp 00000000 00:1a 79  /usr/lib/libc.so.6
7f06-7f07 rw-s 00000000 00:1a 80  /dev/shm/sem.mp-x1y2
7f08-7f09 rw-p 00000000 00:00 0
"""


def test_the_names_stand_in_the_maps(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "maps").write_text(MAPS)
    processes = [Process(pid, 1, "S", 1, "VLLM::Worker") for pid in (7, 8)]
    assert segments(processes, tmp_path) == {Path("/dev/shm/psm_1a2b3c"), Path("/dev/shm/sem.mp-x1y2")}


def test_one_that_is_gone_already_is_no_mistake() -> None:
    memory = SharedMemory(create=True, size=16)
    path = Path("/dev/shm") / memory.name
    remove([path, path])
    assert not path.exists()
    memory.close()
    SharedMemory(name=memory.name, create=True, size=16).unlink()  # the resource tracker has its name back
