"""Dashboards, rules and runbooks agree with the metrics that exist."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from observability.dashboards import DASHBOARDS
from observability.grafana import GRID_WIDTH, Dashboard, dashboard_json
from observability.rules import ALERTS, RECORDINGS, alert_rules, recording_rules
from tests.prometheus import promtool

from quarterdeck.simulator.metrics.series import COUNTERS, GAUGES, HISTOGRAMS
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics
from quarterdeck.telemetry.metrics import Metrics
from quarterdeck.telemetry.operator_metrics import OperatorMetrics
from quarterdeck.telemetry.worker_metrics import WorkerMetrics

ROOT = Path(__file__).resolve().parents[2]
METRIC = re.compile(r"\b(?:quarterdeck_|gen_ai_(?:server|client)_|vllm:|process_|ray_)[a-zA-Z0-9_:]+")
SUFFIX = re.compile(r"_(?:total|bucket|sum|count)$")
PROCESS = {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"}
RAY = set((Path(__file__).parent / "ray_series.txt").read_text().split())
"""Families of Ray 2.60 with Serve. `test_ray` compares them with a running Ray."""
EXPRESSIONS = [query.expr for board in DASHBOARDS.values() for panel in board.panels for query in panel.queries]
RULES = [each.expr for each in (*RECORDINGS, *ALERTS)]


def of(subject: Metrics) -> set[str]:
    return {name for name, *_ in subject.describe()}


def named(expressions: list[str]) -> set[str]:
    """Families that expressions name."""
    return {SUFFIX.sub("", name) for expr in expressions for name in METRIC.findall(expr)}


def test_every_metric_that_a_query_names_exists() -> None:
    known = (
        of(GatewayMetrics())
        | of(WorkerMetrics())
        | of(OperatorMetrics())
        | {each.name for each in (*GAUGES, *COUNTERS, *HISTOGRAMS)}
        | PROCESS
        | RAY
    )
    assert named(EXPRESSIONS + RULES) - known == set()


def test_every_metric_of_ours_is_shown() -> None:
    ours = of(GatewayMetrics()) | of(WorkerMetrics()) | of(OperatorMetrics())
    assert ours - named(EXPRESSIONS) == set()


def test_every_recorded_name_that_an_alert_uses_is_recorded() -> None:
    used = {name for each in ALERTS for name in re.findall(r"quarterdeck:[a-z0-9_:]+", each.expr)}
    assert used and used <= {each.record for each in RECORDINGS}


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_panels_fill_a_grid_without_overlaps(board: Dashboard) -> None:
    made = json.loads(dashboard_json(board))
    taken = set[tuple[int, int]]()
    for panel in made["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= GRID_WIDTH and not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
    assert len({panel.title for panel in board.panels}) == len(board.panels)
    assert all(panel.description.endswith(".") for panel in board.panels)


def test_every_variable_that_a_query_uses_is_offered() -> None:
    for board in DASHBOARDS.values():
        offered = {each.name for each in board.variables} | {"__rate_interval"}
        used = {name for panel in board.panels for q in panel.queries for name in re.findall(r"\$(\w+)", q.expr)}
        assert used <= offered, board.uid


def test_every_alert_has_a_runbook_whose_links_lead_somewhere() -> None:
    for rule in yaml.safe_load(alert_rules())["groups"][0]["rules"]:
        page = ROOT / rule["annotations"]["runbook"]
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), (page.name, link)
    assert len({each.name for each in ALERTS}) == len(ALERTS)


def test_every_panel_that_a_runbook_names_is_on_a_dashboard() -> None:
    titles = {panel.title for board in DASHBOARDS.values() for panel in board.panels}
    for each in ALERTS:
        for title in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", "\n".join((*each.checks, *each.remedies))):
            assert title in titles, (each.name, title)


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    for name, text in (("recording.yaml", recording_rules()), ("alerts.yaml", alert_rules())):
        (tmp_path / name).write_text(text)
        subprocess.run([promtool(), "check", "rules", tmp_path / name], check=True, capture_output=True)


def test_prometheus_takes_the_example_configuration() -> None:
    """Syntax only: the file of the admin key is the operator's."""
    command = [promtool(), "check", "config", "--syntax-only", ROOT / "observability/prometheus.yml"]
    subprocess.run(command, check=True, capture_output=True)


def test_alerts_fire_and_rest_as_intended() -> None:
    """Simulated series; the clock is promtool's."""
    ran = subprocess.run(
        [promtool(), "test", "rules", "alerts_test.yaml"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
