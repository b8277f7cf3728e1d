"""How long a token takes: the same arithmetic as llm-d-inference-sim's."""

from random import Random

from quarterdeck.simulator.config import SimulatorConfig


def load_factor(config: SimulatorConfig, running: int) -> float:
    """1 for a lone sequence, `time-factor-under-load` for max-num-seqs of them, linear between."""
    most = config.max_num_seqs
    if config.time_factor_under_load <= 1 or most < 2 or running < 2:
        return 1.0
    return 1.0 + (config.time_factor_under_load - 1.0) * (min(running, most) - 1) / (most - 1)


def around(mean: float, spread: float, random: Random) -> float:
    """A normal draw that keeps within 70 % of the mean."""
    if not mean or not spread:
        return mean
    return min(max(random.gauss(mean, spread), 0.3 * mean), 1.7 * mean)


def to_first_token(config: SimulatorConfig, random: Random, *, uncached: int, running: int) -> float:
    """From the moment the request runs to its first token."""
    by_token = config.latency_calculator == "per-token" or (
        config.latency_calculator == "" and config.time_to_first_token == 0
    )
    if by_token:
        mean = config.prefill_overhead + config.prefill_time_per_token * uncached
        wait = around(mean, config.prefill_time_std_dev, random)
    else:
        wait = around(config.time_to_first_token, config.time_to_first_token_std_dev, random)
    return wait * load_factor(config, running)


def between_tokens(config: SimulatorConfig, random: Random, *, running: int) -> float:
    wait = around(config.inter_token_latency, config.inter_token_latency_std_dev, random)
    return wait * load_factor(config, running)
