from random import Random

import pytest

from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.scheduling.latency import between_tokens, load_factor, to_first_token


@pytest.mark.parametrize(("running", "factor"), [(1, 1.0), (3, 2.0), (5, 3.0), (50, 3.0)])
def test_times_grow_to_the_factor_at_most_sequences(running: int, factor: float) -> None:
    config = SimulatorConfig(time_factor_under_load=3, max_num_seqs=5)
    assert load_factor(config, running) == pytest.approx(factor)


def test_prefill_takes_uncached_tokens_only() -> None:
    config = SimulatorConfig(prefill_overhead=0.1, prefill_time_per_token=0.01)
    assert to_first_token(config, Random(0), uncached=30, running=1) == pytest.approx(0.4)


def test_a_time_to_first_token_goes_before_prefill() -> None:
    config = SimulatorConfig(time_to_first_token=0.5, prefill_time_per_token=1)
    assert to_first_token(config, Random(0), uncached=30, running=1) == 0.5
    by_token = SimulatorConfig(time_to_first_token=0.5, prefill_time_per_token=1, latency_calculator="per-token")
    assert to_first_token(by_token, Random(0), uncached=30, running=1) == 30


def test_jitter_keeps_near_its_mean_and_repeats() -> None:
    config = SimulatorConfig(inter_token_latency=0.1, inter_token_latency_std_dev=0.03)
    random = Random(1)
    draws = [between_tokens(config, random, running=1) for _ in range(2000)]
    assert all(0.03 <= draw <= 0.17 for draw in draws)
    assert sum(draws) / len(draws) == pytest.approx(0.1, rel=0.05)
    assert draws[0] == between_tokens(config, Random(1), running=1)
