"""Renders /metrics: real values, or those of `fake-metrics`."""

import time

from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.metrics import fake_metrics, series
from quarterdeck.simulator.metrics.engine_metrics import EngineMetrics
from quarterdeck.simulator.metrics.series import Series
from quarterdeck.simulator.metrics.text_format import MetricsPage


def render(engine: Engine) -> bytes:
    page = MetricsPage(engine.config.names[0])
    metrics = faked(engine) if engine.config.fake_metrics else engine.metrics
    for each in series.GAUGES:
        gauge(page, each, engine)
    for each in series.COUNTERS:
        page.counter(each, metrics)
    for each in series.HISTOGRAMS:
        page.histogram(each, metrics.histograms[each.name])
    lora(page, engine)
    page.head(series.CACHE_INFO)
    page.info(
        series.CACHE_INFO,
        {
            "block_size": str(engine.config.block_size),
            "num_gpu_blocks": str(engine.config.kv_cache_size),
            "enable_prefix_caching": str(engine.config.enable_kvcache),
            "engine": "0",
        },
    )
    for kind, count in engine.faults.applied.items():
        engine.metrics.counters["quarterdeck_simulator_faults", kind] = count
    for each in series.OWN:
        page.counter(each, engine.metrics)
    return page.text()


def gauge(page: MetricsPage, each: Series, engine: Engine) -> None:
    page.head(each)
    scheduler = engine.scheduler
    if each.name == "vllm:num_requests_running":
        page.value(each.name, shown_value(engine, "running-requests", scheduler.running))
    elif each.name == "vllm:num_requests_waiting":
        page.value(each.name, shown_value(engine, "waiting-requests", scheduler.waiting))
    elif each.name == "vllm:num_requests_waiting_by_reason":
        waiting, deferred = shown_value(engine, "waiting-requests", scheduler.waiting), scheduler.deferred
        page.value(each.name, max(waiting - deferred, 0), reason="capacity")
        page.value(each.name, deferred, reason="deferred")
    elif each.name == "vllm:engine_sleep_state":
        for state, value in (("awake", 1), ("weights_offloaded", 0), ("discard_all", 0)):
            page.value(each.name, value, sleep_state=state)
    elif each.name == "vllm:kv_cache_usage_perc":
        usage = engine.blocks.usage if engine.blocks is not None else 0.0
        page.value(each.name, shown_value(engine, "kv-cache-usage", usage))


def shown_value(engine: Engine, name: str, real: float) -> float:
    """Return the fake value if there is one. With any fake, other gauges are 0: a page never mixes both kinds."""
    fakes = engine.config.fake_metrics
    if not fakes:
        return real
    return fake_metrics.value_at(fakes[name], engine.elapsed) if name in fakes else 0.0


def lora(page: MetricsPage, engine: Engine) -> None:
    page.head(series.LORA_INFO)
    most = str(engine.config.max_loras)
    if fakes := engine.config.fake_metrics.get(fake_metrics.LORAS):
        for each in fakes:
            values = {"max_lora": most, "waiting_lora_adapters": str(each.get("waiting", ""))}
            values["running_lora_adapters"] = str(each.get("running", ""))
            page.info(series.LORA_INFO, values, float(each.get("timestamp", time.time())))
        return
    running, waiting = engine.scheduler.adapters()
    page.info(
        series.LORA_INFO,
        {
            "max_lora": most,
            "waiting_lora_adapters": ",".join(waiting),
            "running_lora_adapters": ",".join(running),
        },
        time.time(),
    )


def faked(engine: Engine) -> EngineMetrics:
    """Return counters and histograms with the fake values, the rest empty."""
    metrics = EngineMetrics(engine.config.max_model_len)
    for name, value in engine.config.fake_metrics.items():
        if name in fake_metrics.COUNTERS:
            metrics.counters[fake_metrics.COUNTERS[name], ""] = float(value)
        elif name in fake_metrics.HISTOGRAMS:
            metrics.histograms[fake_metrics.HISTOGRAMS[name]].preset(value)
        elif name == fake_metrics.SUCCESS:
            for reason, count in value.items():
                metrics.counters["vllm:request_success", str(reason)] = float(count)
    return metrics
