"""Causes of an engine's end, read from its last lines.

The texts are those of vLLM 0.29, transformers, huggingface_hub and torch; `tests/operator/fixtures/engine_output` has
them as these programs wrote them. A line counts wherever it stands: the cause is often not the last error, since the
engine core fails first and its API server ends with an error of its own.
"""

import re
from dataclasses import dataclass

from quarterdeck.kube.conditions import Reason

MAX_LINE = 300
"""Characters of a line that a message quotes."""

_PREFIX = re.compile(
    r"^(?:\([A-Za-z_0-9 ]+ pid=\d+\) ?)?(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]+\] "
    r"?)?"
)
"""What vLLM puts before a line: the process, and the level, time and place of a log record."""
_EXCEPTION = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?([A-Z]\w*(?:Error|Exception|Interrupt|Exit|NotFound)\b.*)$")
_NOISE = re.compile(
    r"^(?:For further information visit|For more information check|During handling of the above|The above exception|"
    r"If this is a private repository|Check your internet connection|raise |File \"|Traceback|\^+$|[~^ ]+$|"
    r"\[rank\d+\]:\[W|"
    r"usage: |warnings\.warn|.*See (?:root cause above|stack trace for root cause)|.*UserWarning: resource_tracker)"
)
_INPUT = re.compile(r" \[type=\w+, input_value=.*$")
"""The tail of a pydantic error: the whole configuration."""


@dataclass(frozen=True, slots=True)
class EngineError:
    """A known cause, or `reason` None for an unknown one."""

    reason: Reason | None
    line: str
    """The line that states it, without prefixes."""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    reason: Reason
    patterns: tuple[re.Pattern[str], ...]
    """The first that is found gives the line that is quoted."""
    hint: str


def _known(reason: Reason, hint: str, *patterns: str) -> _Known:
    return _Known(reason, tuple(re.compile(each, re.IGNORECASE) for each in patterns), hint)


_KNOWN = (
    # What a full disk causes is reported as many other things; it goes first.
    _known(
        Reason.DISK_FULL,
        "Enlarge spec.source.cache, or delete models from it that are not needed.",
        r"No space left on device",
        r"\[Errno 28\]",
        r"Not enough free disk space to download",
        r"Disk quota exceeded",
    ),
    _known(
        Reason.ADAPTER_RANK_TOO_LARGE,
        "Raise spec.adapters.maxRank of the Model, or train the adapter with a smaller rank.",
        r"LoRA rank \d+ is greater than max_lora_rank",
    ),
    _known(
        Reason.ACCELERATOR_OUT_OF_MEMORY,
        "Lower spec.context or the engine argument max-num-seqs, quantize (spec.quantization), or use more or larger "
        "accelerators (spec.resources).",
        r"(?:CUDA|HIP|XPU) out of memory",
        r"OutOfMemoryError",
        r"No available memory for the cache blocks",
        r"cache is needed, which is larger than the available KV cache",
        r"Free memory on device .* is less than desired GPU memory utilization",
        r"on kv cache allocation is less than requested memory for kv",
    ),
    _known(
        Reason.HUB_UNAUTHORIZED,
        "Name a Secret with a token that has access in spec.source.secretRef, and accept the model's licence on its "
        "page.",
        r"Access to model \S+ is restricted",
        r"Cannot access gated repo",
        r"trying to access a gated repo",
        r"\b40[13] (?:Client Error|Unauthorized|Forbidden)\b",
        r"Invalid credentials in Authorization header",
        r"Invalid user token",
    ),
    _known(
        Reason.SOURCE_NOT_FOUND,
        "Correct spec.source.uri. If the repository is private, name a Secret with a token in spec.source.secretRef.",
        r"is not a valid model identifier listed on",
        r"Invalid repository ID or local directory specified",
        r"Repo id must (?:be|use)",
        r"Repository Not Found",
        r"does not appear to have a file named config\.json",
        r"Cannot find any model weights with",
        r"No such file or directory: '[^']*config\.json'",
    ),
    _known(
        Reason.SOURCE_NOT_FOUND,
        "Correct spec.source.revision: a branch, a tag or a commit of the repository.",
        r"is not a valid git identifier",
        r"Revision Not Found",
        r"Invalid rev id",
    ),
    _known(
        Reason.HUB_UNREACHABLE,
        "Check the cluster's egress, DNS and proxies (engine.env: HTTPS_PROXY, HF_ENDPOINT), or use weights in a "
        "volume: "
        "spec.source.uri pvc://claim/path.",
        r"We couldn't connect to '",
        r"There was a specific connection error when trying to load",
        r"Cannot (?:find|reach) the requested files in the (?:disk|local) cache and outgoing traffic has been disabled",
        r"offline mode is enabled",
        r"outgoing traffic has been disabled",
        r"Name or service not known",
        r"Temporary failure in name resolution",
        r"Network is unreachable",
        r"\b(?:429|50[0234]) (?:Client Error|Server Error|Too Many Requests|Internal Server Error|Service "
        r"Unavailable|Bad Gateway)",
    ),
    _known(
        Reason.INVALID_SOURCE,
        "Use a model that this version of the engine supports (spec.engine.version), or upload its files again.",
        r"Model architectures? \S+ (?:are|is) not supported",
        r"Model architectures .* (?:are not supported for now|failed to be inspected)",
        r"Model architecture \S+ was supported in vLLM until",
        r"but Transformers does not recognize this architecture",
        r"Unrecognized model in",
        r"SafetensorError",
        r"Error while deserializing header",
        r"is not compatible with vLLM",
        r"No model architectures are specified",
        r"contains custom code which must be executed",
        r"execute the configuration file in that repo",
        r"is not a valid JSON file",
    ),
    _known(
        Reason.INVALID_ENGINE_ARGUMENT,
        "Correct spec.engine.args (or the field it comes from).",
        r"^\S+(?: serve)?: error: ",
        r"validation errors? for \w*(?:Config|Args)\b",
        r"must be divisible by tensor parallel size",
        r"World size \(\d+\) is larger than the number of available",
        r"Unknown quantization method",
        r"User-specified max_model_len",
        r"invalid tool call parser",
        r"invalid reasoning parser",
        r"looks like a file path, but it failed to be opened",
        r"appears path-like, but doesn't exist",
        r"The following environment variables? (?:is|are) (?:unknown|invalid)",
    ),
    _known(
        Reason.NO_DEVICE,
        "Check the accelerator profile (its resource and runtimeClass) and the driver of the node.",
        r"No CUDA GPUs are available",
        r"Found no NVIDIA driver",
        r"Failed to infer device type",
        r"driver version is insufficient",
        r"CUDA driver initialization failed",
        r"no CUDA-capable device",
    ),
)


def explain(text: str) -> EngineError | None:
    """Return the cause that the last lines of an engine's log state; None for an empty text."""
    lines = [line for line in (_clean(raw) for raw in text.splitlines()) if line]
    if not lines:
        return None
    for known in _KNOWN:
        for pattern in known.patterns:
            for at, line in enumerate(lines):
                if pattern.search(line):
                    return EngineError(known.reason, _statement(lines, at), known.hint)
    return EngineError(None, last_line(lines))


def last_line(lines: list[str]) -> str:
    """The last line that states an exception, or else the last one that says anything."""
    useful = [line for line in lines if not _NOISE.match(line)]
    for line in reversed(useful):
        if found := _EXCEPTION.match(line):
            return _shorten(found[1])
    return _shorten((useful or lines)[-1])


def _clean(raw: str) -> str:
    line = raw.strip()
    # Twice: a record of another process may be inside a record.
    for _ in range(2):
        line = _PREFIX.sub("", line, count=1).strip()
    return line


def _statement(lines: list[str], at: int) -> str:
    """A line and, where it only announces the cause ("1 validation error for ModelConfig"), the next one."""
    line = lines[at]
    if re.search(r"validation errors? for \w+$", line) and at + 1 < len(lines):
        line = lines[at + 1]
    if found := _EXCEPTION.match(line):
        line = found[1]
    line = re.sub(r"^(?:(?:WorkerProc|EngineCore) failed to start\. )?(?:\w+Error: |Value error, )*", "", line)
    return _shorten(_INPUT.sub("", line))


def _shorten(line: str) -> str:
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…"
