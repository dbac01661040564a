"""The lines of a JSON access log that is still being written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def lines(*files: Path) -> list[dict[str, Any]]:
    """Every line that is whole: while one is being written a reader may see the beginning of it."""
    return [json.loads(line) for line in _whole(files)]


def endpoints_of(line: dict[str, Any]) -> set[str]:
    """Everybody who was asked."""
    return {line["upstream"], *[attempt["endpoint"] for attempt in line["attempts"]]}


def _whole(files: Iterable[Path]) -> Iterable[str]:
    for file in files:
        yield from file.read_text().rpartition("\n")[0].splitlines()
