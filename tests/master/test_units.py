"""The unit files, judged by systemd itself (the Debian package `systemd` has the tool)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
PROGRAM = "/opt/gateway/bin/gateway"


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Copies of the units; `verify` wants the program to exist, so it is another one here."""
    for unit in UNITS.iterdir():
        text = unit.read_text()
        assert unit.suffix != ".service" or PROGRAM in text
        (tmp_path / unit.name).write_text(text.replace(PROGRAM, "/bin/true"))
    return tmp_path


def test_systemd_understands_every_line(units: Path) -> None:
    result = analyze("verify", *sorted(units.iterdir()))
    complaints = [line for line in result.stderr.splitlines() if "gateway." in line]  # and not those of the machine
    version = re.search(r"systemd (\d+)", analyze("--version").stdout)
    assert version
    if int(version[1]) < 253:  # the first to know Type=notify-reload
        complaints = [line for line in complaints if not line.endswith("notify-reload")]
    assert complaints == []
    assert result.returncode == 0, result.stderr


def test_the_service_is_rated_safe(units: Path) -> None:
    result = analyze("security", "--offline=true", "--threshold=25", units / "gateway.service")  # 25 stands for 2.5
    assert result.returncode == 0, result.stdout + result.stderr
