"""Whether a model fits on GPUs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.model_lifecycle.gpus import Gpu, GpuNeed, Gpus, fits_in_place_of, refusal

GB = 10**9
L4 = Gpu("NVIDIA L4", 24 * GB, 23 * GB)
BUSY_L4 = Gpu("NVIDIA L4", 24 * GB, 9 * GB)
counts = st.integers(0, 16)


@given(counts, counts, counts)
def test_a_model_needs_as_many_gpus_as_the_others_leave(count: int, total: int, taken: int) -> None:
    assert (refusal(GpuNeed(count, GB, 0.9), Gpus(total), taken) == "") == (count <= max(0, total - taken))


def test_a_gpu_that_another_model_has_is_not_free() -> None:
    assert refusal(GpuNeed(1, GB, 0.9), Gpus(1), 1) == "does not fit: needs 1 GPU, 0 of 1 free"
    assert refusal(GpuNeed(2, GB, 0.9), Gpus(4), 3) == "does not fit: needs 2 GPUs, 1 of 4 free"


def test_weights_that_are_larger_than_the_share_of_a_gpu_are_refused_with_figures() -> None:
    assert refusal(GpuNeed(1, 33 * GB, 0.92), Gpus(1, (L4,)), 0) == (
        "does not fit: needs 33.0 GB on each GPU, and gpu_memory_utilization 0.92 gives it 22.1 GB of NVIDIA L4"
    )


def test_memory_that_another_program_has_taken_is_named_with_a_share_that_would_fit() -> None:
    assert refusal(GpuNeed(1, 5 * GB, 0.92), Gpus(1, (BUSY_L4,)), 0) == (
        "does not fit: needs 22.1 GB of NVIDIA L4 (gpu_memory_utilization 0.92), 9.0 GB free; it would fit with 0.35"
    )
    assert refusal(GpuNeed(1, 12 * GB, 0.92), Gpus(1, (BUSY_L4,)), 0).endswith("9.0 GB free")


@given(st.floats(0.05, 1.0), st.integers(0, 24), st.integers(1, 24))
def test_the_share_that_is_proposed_fits(share: float, free: int, needed: int) -> None:
    gpus = Gpus(1, (Gpu("x", 24 * GB, free * GB),))
    _, found, proposed = refusal(GpuNeed(1, needed * GB, share), gpus, 0).partition("it would fit with ")
    assert not found or refusal(GpuNeed(1, needed * GB, float(proposed)), gpus, 0) == ""


def test_one_gpu_with_room_is_enough_for_one_replica() -> None:
    assert refusal(GpuNeed(1, 5 * GB, 0.92), Gpus(2, (BUSY_L4, L4)), 0) == ""
    assert "9.0 GB free" in refusal(GpuNeed(2, 5 * GB, 0.92), Gpus(2, (BUSY_L4, L4)), 0)


@pytest.mark.parametrize(("count", "needed", "expected"), [(1, 5, True), (2, 5, False), (1, 30, False)])
def test_a_new_version_takes_the_gpu_of_the_previous_one(count: int, needed: int, expected: bool) -> None:
    assert fits_in_place_of(GpuNeed(count, needed * GB, 0.92), Gpus(1, (BUSY_L4,)), 0) is expected


def test_without_figures_of_memory_only_gpus_are_counted() -> None:
    assert refusal(GpuNeed(1, 10**15, 0.92), Gpus(1), 0) == ""
