"""Configurations for tests, as the text of a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Settings:
    """A gateway in front of one origin, or several, by address. `but` makes another that differs."""

    origin: str | tuple[str, ...]
    workers: int = 1
    listeners: dict[str, str] = field(default_factory=lambda: {"web": "127.0.0.1:0"})
    admin: str | None = "127.0.0.1:0"
    process: dict[str, Any] = field(default_factory=dict)
    log: dict[str, str] = field(default_factory=dict)
    upstream: dict[str, Any] = field(default_factory=dict)
    more: str = ""

    def but(self, **changed: Any) -> Settings:
        return replace(self, **changed)

    def __str__(self) -> str:
        process = {"workers": self.workers, "control": "control.sock", "drain_timeout": "10s"} | self.process
        log = {"access": "access.log"} | self.log
        parts = [_table("[process]", process), _table("[log]", log)]
        if self.admin is not None:
            parts.append(_table("[admin]", {"listen": self.admin}))
        for name, address in self.listeners.items():
            parts.append(_table("[[listeners]]", {"name": name, "listen": address}))
        origins = [self.origin] if isinstance(self.origin, str) else list(self.origin)
        parts.append(_table("[upstreams.app]", {"endpoints": origins} | self.upstream))
        parts.append(_table("[[routes]]", {"name": "app", "upstream": "app"}))
        parts.append(self.more)
        return "\n".join(parts)


def _table(header: str, values: dict[str, Any]) -> str:
    return "\n".join([header, *(f"{key} = {json.dumps(value)}" for key, value in values.items())]) + "\n"
