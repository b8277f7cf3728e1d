"""The logging configuration of vLLM's pods: errors of the engine core also go into the container's termination log.

vLLM's engine core and its workers are processes of their own. When one can't start, it logs why, and then the API
server ends with a stack trace that only says "Engine core initialization failed. See root cause above". The kubelet
keeps the last 2,048 bytes of a log, so the cause would be lost. With this configuration each error of these processes
is a line in /dev/termination-log, which the kubelet prefers; errors of the API server itself (arguments, the hub) are
in the log's last lines.

Both texts travel as annotations of the pod and are mounted as files by the downward API: no ConfigMap is needed, and
any image of vLLM can be used.
"""

import json
from pathlib import Path
from typing import Any

from quarterdeck.operator import termination_formatter

TERMINATION_LOG = "/dev/termination-log"
CONFIG_FILE, MODULE_FILE = "logging.json", "quarterdeck_termination.py"
CONFIG_ANNOTATION, MODULE_ANNOTATION = "quarterdeck.dev/logging", "quarterdeck.dev/logging-module"

MODULE = Path(termination_formatter.__file__).read_text(encoding="utf-8")

_PROCESSES = ("vllm.v1.engine.core", "vllm.v1.executor", "vllm.v1.worker")
"""Loggers of the engine core and its workers. A request's error is not logged by them."""


def configuration(termination_log: str = TERMINATION_LOG) -> dict[str, Any]:
    """vLLM's own configuration with one more handler, as `logging.config.dictConfig` reads it."""
    handlers = ["vllm", "termination"]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "vllm": {
                "class": "vllm.logging_utils.NewLineFormatter",
                "datefmt": "%m-%d %H:%M:%S",
                "format": "%(levelname)s %(asctime)s [%(fileinfo)s:%(lineno)d] %(message)s",
            },
            "termination": {"()": "quarterdeck_termination.TerminationFormatter"},
        },
        "handlers": {
            "vllm": {
                "class": "logging.StreamHandler",
                "formatter": "vllm",
                "level": "INFO",
                "stream": "ext://sys.stdout",
            },
            "termination": {
                "class": "logging.FileHandler",
                "filename": termination_log,
                "delay": True,
                "formatter": "termination",
                "level": "ERROR",
            },
        },
        "loggers": {
            "vllm": {"handlers": ["vllm"], "level": "INFO", "propagate": False},
            **{name: {"handlers": handlers, "level": "INFO", "propagate": False} for name in _PROCESSES},
        },
    }


def annotations() -> dict[str, str]:
    """Annotations of a vLLM pod."""
    return {
        CONFIG_ANNOTATION: json.dumps(configuration(), separators=(",", ":"), sort_keys=True),
        MODULE_ANNOTATION: MODULE,
    }


def files() -> list[dict[str, Any]]:
    """Items of a downward API volume that show the annotations as files."""
    named = ((CONFIG_FILE, CONFIG_ANNOTATION), (MODULE_FILE, MODULE_ANNOTATION))
    return [
        {"path": path, "fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}} for path, annotation in named
    ]


def environment(folder: str) -> dict[str, str]:
    """Environment variables of a container that has the files in `folder`."""
    return {"VLLM_LOGGING_CONFIG_PATH": f"{folder}/{CONFIG_FILE}", "PYTHONPATH": folder}
