"""A real Prometheus: from PATH, or Debian's package."""

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tests.debian_packages import program
from tests.platform import free_port
from tests.servers import ServerProcess

PACKAGES = ("prometheus",)


def promtool() -> Path:
    return program(PACKAGES, "usr/bin/promtool")


class Prometheus(ServerProcess):
    """Scrapes `jobs`, targets by job, once a second, and evaluates `rules` as often."""

    def __init__(self, folder: Path, jobs: Mapping[str, Sequence[str]], rules: Sequence[Path]) -> None:
        super().__init__()
        self.folder = folder
        self.port = free_port()
        self.log = folder / "prometheus.log"
        configs = [{"job_name": job, "static_configs": [{"targets": list(targets)}]} for job, targets in jobs.items()]
        made = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": configs,
            "rule_files": [str(path) for path in rules],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(made))

    def command(self) -> list[str]:
        return [
            str(program(PACKAGES, "usr/bin/prometheus")),
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query. Raises ValueError for an invalid one."""
        found: list[dict[str, Any]] = self._get("query", query=expr)["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their health and last error."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                data: dict[str, Any] = json.load(response)["data"]
                return data
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from error
