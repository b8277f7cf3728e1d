"""Figures of one model from an engine's `/metrics`: KV cache, speed, load. Read on request."""

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Any

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import Timeouts, UpstreamError
from quarterdeck.net.http_origin import Origin, request_head

TIMEOUTS = Timeouts(connect=1.0, first_byte=2.0, idle=2.0)
MAX_BYTES = 8 * 1024 * 1024
_SAMPLE = re.compile(r"^(vllm:[a-z_:]+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class EngineFigures:
    """`client`: the gateway's own."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    async def of(self, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
        """Of a model's ready replicas together. Empty: none could be read."""
        replicas = [each for each in endpoints if each.spec.state == "ready" and each.spec.kind == "vllm"]
        texts = await asyncio.gather(*(self._read(each) for each in replicas))
        return figures(
            [(text, each.spec.upstream_model or each.spec.model) for text, each in zip(texts, replicas, strict=True)]
        )

    async def _read(self, endpoint: Endpoint) -> str:
        try:
            origin = Origin.parse(endpoint.spec.url)
            head = request_head("GET", origin, "/metrics", [(b"content-length", b"0")]) + b"\r\n"
            connection = await self._client.request(origin, head, b"", TIMEOUTS)
            try:
                body = await connection.read_all(MAX_BYTES)
            finally:
                self._client.release(origin, connection)
        except (UpstreamError, ValueError):
            return ""  # it has no metrics, or is gone: its figures are missing
        return body.decode(errors="replace") if connection.status == 200 else ""


def figures(replicas: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Of pairs of an exposition and the model's name in it. Pure.

    `kv_cache_tokens`: room of all replicas; `tokens_per_second`: mean of one answer, as answers have come until now.
    """
    tokens, usage, running, waiting, seconds, answers = 0, [], 0.0, 0.0, 0.0, 0.0
    found = False
    for text, model in replicas:
        for name, labels, value in samples(text):
            if labels.get("model_name", model) != model:
                continue
            found = True
            if name == "vllm:cache_config_info":
                tokens += _integer(labels.get("block_size")) * _integer(labels.get("num_gpu_blocks"))
            elif name == "vllm:kv_cache_usage_perc":
                usage.append(value)
            elif name == "vllm:num_requests_running":
                running += value
            elif name == "vllm:num_requests_waiting":
                waiting += value
            elif name == "vllm:request_time_per_output_token_seconds_sum":
                seconds += value
            elif name == "vllm:request_time_per_output_token_seconds_count":
                answers += value
    if not found:
        return {}
    return {
        "kv_cache_tokens": tokens or None,
        "kv_cache_usage": round(sum(usage) / len(usage), 4) if usage else None,
        "requests_running": int(running),
        "requests_waiting": int(waiting),
        "tokens_per_second": round(answers / seconds, 1) if seconds > 0 else None,
    }


def samples(text: str) -> Iterable[tuple[str, dict[str, str], float]]:
    """The samples of vLLM's own series, without buckets."""
    for name, labels, value in _SAMPLE.findall(text):
        if not name.endswith("_bucket"):
            try:
                yield name, dict(_LABEL.findall(labels)), float(value)
            except ValueError:
                continue


def _integer(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
