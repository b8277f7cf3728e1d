"""Whether a model fits."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.model_lifecycle.memory import (
    Committed,
    Need,
    fits,
    free_memory,
    least_weights_bytes,
    refusal,
    resident_bytes,
    room,
    weights_bytes,
)

sizes = st.integers(0, 1 << 45)
committed = st.lists(st.builds(Committed, needed=sizes, resident=sizes), max_size=5)


@given(sizes, sizes, sizes, committed)
def test_a_model_fits_exactly_up_to_the_room(weights: int, kv: int, overhead: int, others: list[Committed]) -> None:
    need = Need(weights, kv, overhead)
    reserved = sum(each.outstanding for each in others)
    assert fits(need, need.total + reserved, others)
    assert not fits(need, need.total + reserved - 1, others)


@given(sizes, committed, st.builds(Committed, needed=sizes, resident=sizes))
def test_another_model_never_makes_room(free: int, others: list[Committed], another: Committed) -> None:
    assert room(free, [*others, another]) <= room(free, others) <= free


@given(sizes, sizes)
def test_memory_that_a_model_has_taken_is_not_counted_twice(needed: int, resident: int) -> None:
    assert Committed(needed, resident).outstanding == max(0, needed - resident)


@given(st.integers(1, 1 << 40), sizes)
def test_quantized_weights_are_smaller_than_exact_ones(parameters: int, stored: int) -> None:
    four_bits = weights_bytes(parameters, stored, quantization="bitsandbytes", dtype="bfloat16")
    eight_bits = weights_bytes(parameters, stored, quantization="int8", dtype="bfloat16")
    half = weights_bytes(parameters, stored, quantization="none", dtype="bfloat16")
    assert four_bits <= eight_bits <= half <= weights_bytes(parameters, stored, quantization="none", dtype="float32")


def test_weights_of_an_unknown_format_are_as_large_as_their_files() -> None:
    assert weights_bytes(0, 123, quantization="none", dtype="float32") == 123
    assert weights_bytes(1000, 123, quantization="awq", dtype="float16") == 123


@given(
    st.integers(1, 1 << 40),
    sizes,
    st.sampled_from(["none", "bitsandbytes", "int8", "fp8", "awq", "gptq"]),
    st.sampled_from(["auto", "float16", "bfloat16", "float32"]),
)
def test_the_least_that_weights_take_is_not_more_than_an_estimate(
    parameters: int, stored: int, quantization: str, dtype: str
) -> None:
    least = least_weights_bytes(parameters, stored, quantization=quantization, dtype=dtype)
    assert least <= stored
    if dtype != "auto":
        assert least <= weights_bytes(parameters, stored, quantization=quantization, dtype=dtype)


def test_a_refusal_says_what_is_needed_and_what_is_free() -> None:
    assert refusal(Need(3_600_000_000, 10**9, 500_000_000), 2_300_000_000) == (
        "does not fit: needs 5.1 GB of memory (3.6 GB weights, 1.0 GB KV cache, 0.5 GB its processes), 2.3 GB free"
    )
    assert refusal(Need(5_100_000_000, 0, 0), 0) == "does not fit: needs 5.1 GB of memory, 0.0 GB free"
    assert refusal(Need(1, 0, 0), -5).endswith("0.0 GB free")


def _machine(folder: Path, available_kb: int, **cgroup: str) -> tuple[Path, Path]:
    (folder / "proc").mkdir()
    (folder / "proc" / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:  {available_kb} kB\n")
    (folder / "cgroup").mkdir()
    for name, text in cgroup.items():
        (folder / "cgroup" / name.replace("_", ".")).write_text(text)
    return folder / "proc", folder / "cgroup"


def test_free_memory_is_the_machines_without_a_limit(tmp_path: Path) -> None:
    proc, cgroup = _machine(tmp_path, 2000, memory_max="max\n", memory_current="5", memory_stat="")
    assert free_memory(proc, cgroup) == 2000 * 1024


def test_free_memory_is_what_a_containers_limit_leaves_with_caches(tmp_path: Path) -> None:
    stat = "anon 1\ninactive_file 50\n"
    proc, cgroup = _machine(tmp_path, 2000, memory_max="1000", memory_current="700", memory_stat=stat)
    assert free_memory(proc, cgroup) == 350


def test_free_memory_is_not_known_without_proc(tmp_path: Path) -> None:
    assert free_memory(tmp_path, tmp_path) is None


def test_resident_memory_leaves_out_mapped_files_and_ended_processes(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("VmRSS: 90 kB\nRssAnon: 10 kB\nRssFile: 70 kB\nRssShmem: 2 kB\n")
    assert resident_bytes([7, 8], tmp_path) == 12 * 1024


@pytest.mark.parametrize("size", [0, 10**12])
def test_the_total_is_the_sum_of_its_parts(size: int) -> None:
    assert Need(size, 1, 2).total == size + 3
