from pathlib import Path

import pytest
from tests.cli.admin_api import AdminAPI


@pytest.fixture
def admin(tmp_path: Path) -> AdminAPI:
    return AdminAPI(tmp_path)
