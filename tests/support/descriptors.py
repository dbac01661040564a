"""The descriptors that this process has open."""

from __future__ import annotations

import gc
from pathlib import Path


def descriptors() -> set[str]:
    """Their numbers. What other tests left to the collector goes first: it must not end between two counts."""
    gc.collect()
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}
