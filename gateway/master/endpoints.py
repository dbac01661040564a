"""What is known of the endpoints of a generation, for people, and what these may change about it."""

from __future__ import annotations

import logging
from typing import Any

from gateway.master.generation import Generation
from gateway.metrics.endpoints import drain, endpoints, unprobed
from gateway.metrics.plan import Plan
from gateway.scoreboard import Scoreboard
from gateway.truth import Truth

log = logging.getLogger("gateway")


class Endpoints:
    def __init__(self, board: Scoreboard, plan: Plan) -> None:
        self._truth = Truth(board)
        self._plan = plan

    def rows(self, generation: Generation | None) -> list[dict[str, Any]]:
        """One for each."""
        if generation is None:
            return []
        return endpoints(self._truth, self._plan, generation.config, generation.findings)

    def drain(self, generation: Generation | None, upstream: str, endpoint: str, drained: bool) -> dict[str, Any]:
        """Have an endpoint get nothing new, or something again. Returns the answer for who asks for it."""
        if not any((row["upstream"], row["endpoint"]) == (upstream, endpoint) for row in self.rows(generation)):
            return {"ok": False, "error": f"there is no endpoint {endpoint} of upstream {upstream}"}
        drain(self._truth, self._plan, upstream, endpoint, drained)
        log.info("%s: endpoint %s is %s", upstream, endpoint, "drained" if drained else "no longer drained")
        return {"ok": True}

    def bring_back(self, generation: Generation) -> None:
        """Endpoints that nobody probes any more don't stay down."""
        for upstream, endpoint in unprobed(self._truth, self._plan, generation.config):
            log.warning("%s: endpoint %s is probation, was down: it is probed no more", upstream, endpoint)
