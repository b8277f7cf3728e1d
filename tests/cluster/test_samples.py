"""k8s/samples and charts/quarterdeck-models on a real API server."""

from pathlib import Path

import pytest
from tests.cluster.kubectl import Kubectl
from tests.helm import run

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "k8s" / "samples").glob("*.yaml"))
MODELS_CHART = ROOT / "charts" / "quarterdeck-models"

pytestmark = pytest.mark.usefixtures("crds")


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_the_api_server_takes_a_sample(kubectl: Kubectl, file: Path) -> None:
    kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", str(file))


@pytest.mark.parametrize("values", sorted((MODELS_CHART / "ci").glob("*.yaml")), ids=lambda file: str(file.name))
def test_the_api_server_takes_the_chart_of_models(kubectl: Kubectl, values: Path) -> None:
    rendered = run(["template", "models", str(MODELS_CHART), "--values", str(values)])
    assert rendered.returncode == 0, rendered.stderr
    kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", input=rendered.stdout)
