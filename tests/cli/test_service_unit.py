"""The systemd unit, verified by systemd itself where it is installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quarterdeck.cli.service_unit import Unit, quoted, render

UNITS = {
    "system": Unit(
        (sys.executable, "-m", "quarterdeck.cli", "up"),
        {"HOME": "/var/lib/q"},
        Path("/etc/quarterdeck/environment"),
        "daemon",
    ),
    "user": Unit((sys.executable, "up", "--config", "/a b/100%.yaml"), {"A": "b c"}, Path("/home/a/environment")),
}


@pytest.mark.parametrize("kind", UNITS)
def test_systemd_accepts_the_unit(tmp_path: Path, kind: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("NOT TESTED: systemd-analyze is not installed")
    file = tmp_path / "quarterdeck.service"
    file.write_text(render(UNITS[kind]))
    done = subprocess.run([analyze, "verify", "--man=no", str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    file.write_text(render(UNITS[kind]).replace("Type=notify", "Type=wrong"))
    done = subprocess.run([analyze, "verify", "--man=no", str(file)], capture_output=True, text=True)
    assert "wrong" in done.stderr


def test_words_are_quoted_as_systemd_reads_them() -> None:
    assert quoted("/a b/100%.yaml", is_command=True) == '"/a b/100%%.yaml"'
    assert quoted("$HOME", is_command=True) == "$$HOME"
    assert quoted('PATH=$x "q"') == '"PATH=$x \\"q\\""'


def test_a_service_of_the_machine_has_folders_of_its_own_and_no_rights() -> None:
    text = render(UNITS["system"])
    for line in ("User=daemon", "StateDirectory=quarterdeck", "ProtectSystem=strict", "NoNewPrivileges=yes"):
        assert line in text.splitlines()
    assert "User=" not in render(UNITS["user"])
