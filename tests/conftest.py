"""What holds for all tests: a property is not judged by how busy the machine is, and a program that a test starts finds
its modules compiled, also where this environment asks Python to write none (every start would compile them all)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
