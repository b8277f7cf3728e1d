"""Token latencies in seconds, with llm-d-inference-sim's formulas."""

from random import Random

from quarterdeck.simulator.config import SimulatorConfig


def load_factor(config: SimulatorConfig, running: int) -> float:
    """Return 1 for one sequence, `time-factor-under-load` for max-num-seqs, and linearly between."""
    limit = config.max_num_seqs
    if config.time_factor_under_load <= 1 or limit < 2 or running < 2:
        return 1.0
    return 1.0 + (config.time_factor_under_load - 1.0) * (min(running, limit) - 1) / (limit - 1)


def jittered(mean: float, spread: float, random: Random) -> float:
    """Draw from a normal distribution, clamped to ±70 % of the mean."""
    if not mean or not spread:
        return mean
    return min(max(random.gauss(mean, spread), 0.3 * mean), 1.7 * mean)


def to_first_token(config: SimulatorConfig, random: Random, *, uncached: int, running: int) -> float:
    """Return the time from the request's start to its first token."""
    by_token = config.latency_calculator == "per-token" or (
        config.latency_calculator == "" and config.time_to_first_token == 0
    )
    if by_token:
        mean = config.prefill_overhead + config.prefill_time_per_token * uncached
        wait = jittered(mean, config.prefill_time_std_dev, random)
    else:
        wait = jittered(config.time_to_first_token, config.time_to_first_token_std_dev, random)
    return wait * load_factor(config, running)


def between_tokens(config: SimulatorConfig, random: Random, *, running: int) -> float:
    wait = jittered(config.inter_token_latency, config.inter_token_latency_std_dev, random)
    return wait * load_factor(config, running)
