"""What holds for all tests: a property is not judged by how busy the machine is, programs that tests start find their
modules compiled, and while one test waits others go on."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, each start of the program compiles all of its modules

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are CPUs: some journeys wait for most of their time."""
    return len(os.sched_getaffinity(0)) + 1
