"""The logging configuration of vLLM's pods, with Python's own logging; vLLM's classes are replaced."""

import json
import logging
import logging.config
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.operator import engine_logging


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Configure logging as a pod does, from the annotations; returns the termination log's path."""
    folder = tmp_path / "etc"
    folder.mkdir()
    annotations = engine_logging.annotations()
    (folder / engine_logging.MODULE_FILE).write_text(annotations[engine_logging.MODULE_ANNOTATION])
    monkeypatch.syspath_prepend(str(folder))
    stand_in = types.ModuleType("vllm.logging_utils")
    stand_in.NewLineFormatter = type("NewLineFormatter", (logging.Formatter,), {})  # type: ignore[attr-defined]
    package = types.ModuleType("vllm")
    package.logging_utils = stand_in  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.logging_utils", stand_in)
    text = annotations[engine_logging.CONFIG_ANNOTATION].replace(
        json.dumps(engine_logging.TERMINATION_LOG), json.dumps(str(tmp_path / "termination-log"))
    )
    configuration = json.loads(text)
    configuration["formatters"]["vllm"]["format"] = "%(message)s"
    logging.config.dictConfig(configuration)
    yield tmp_path / "termination-log"
    for name in configuration["loggers"]:
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    sys.modules.pop("quarterdeck_termination", None)


def test_an_error_of_the_engine_core_is_one_line_of_the_termination_log(logs: Path) -> None:
    core = logging.getLogger("vllm.v1.engine.core")
    core.info("loading")
    try:
        raise ValueError("No available memory\nfor the cache blocks.")
    except ValueError:
        core.exception("EngineCore failed to start.")
    assert logs.read_text() == "EngineCore failed to start. ValueError: No available memory for the cache blocks.\n"


def test_an_error_of_the_api_server_is_left_to_the_logs_last_lines(logs: Path) -> None:
    logging.getLogger("vllm.entrypoints.openai").error("a request failed")
    assert not logs.exists()


def test_the_environment_names_the_files_of_the_volume() -> None:
    paths = {f"/etc/engine/{item['path']}" for item in engine_logging.files()}
    assert engine_logging.environment("/etc/engine")["VLLM_LOGGING_CONFIG_PATH"] in paths
    for item in engine_logging.files():
        annotation = item["fieldRef"]["fieldPath"].split("'")[1]
        assert engine_logging.annotations()[annotation]
