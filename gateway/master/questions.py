"""What may be asked at the control socket, and what is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from gateway.config.values import MOST_WORKERS, without_credentials
from gateway.errors import GatewayError
from gateway.master.control import Reply
from gateway.master.endpoints import Endpoints
from gateway.master.generation import Generation
from gateway.master.roster import Roster
from gateway.master.status import status
from gateway.metrics.plan import Plan
from gateway.scoreboard import Cells


class Orders(Protocol):
    """What the master does when it is told to, and what it goes by."""

    @property
    def current(self) -> Generation | None: ...

    @property
    def wanted(self) -> int: ...

    def reload(self, replies: list[Reply]) -> None: ...

    def stop(self) -> None: ...

    def scale(self, workers: int) -> None: ...

    def reopen(self) -> dict[str, Any]: ...


class Questions:
    """`answer` is for Control. path: of the configuration; header: of the scoreboard."""

    def __init__(
        self, master: Orders, path: Path, header: Cells, plan: Plan, children: Roster, endpoints: Endpoints
    ) -> None:
        self._master = master
        self._path = path
        self._header = header
        self._plan = plan
        self._children = children
        self._endpoints = endpoints

    def answer(self, question: dict[str, Any], reply: Reply) -> None:
        match question.get("do"):
            case "status":
                reply(self._status())
            case "reload":
                self._master.reload([reply])
            case "stop":
                self._master.stop()
                reply({"ok": True})
            case "scale" if type(question.get("workers")) is int and 1 <= question["workers"] <= MOST_WORKERS:
                try:
                    self._master.scale(question["workers"])
                except GatewayError as error:
                    reply({"ok": False, "error": str(error)})
                else:
                    reply({"ok": True, "workers": question["workers"]})
            case "reopen":
                reply(self._master.reopen())
            case "endpoints":
                rows = self._endpoints.rows(self._master.current)
                reply({"ok": True, "endpoints": rows, "discovery": self._discovery()})
            case "drain" if type(question.get("drained")) is bool:
                upstream, endpoint = str(question.get("upstream")), str(question.get("endpoint"))
                reply(self._endpoints.drain(self._master.current, upstream, endpoint, question["drained"]))
            case _:
                reply({"ok": False, "error": "not a question this gateway knows"})

    def _status(self) -> dict[str, Any]:
        current = self._master.current
        return status(
            self._children,
            self._header,
            config=str(self._path),
            generation=current.number if current else 0,
            wanted=self._master.wanted,
            listeners={name: one.bound for name, one in current.listening.items()} if current else {},
            tunnels=self._plan.by_listener("tunnels"),
            admin=current.admin.bound if current and current.admin else None,
            discovery=self._discovery(),
            documents=_shown(current.documents.rows()) if current else [],
            ok=True,
        )

    def _discovery(self) -> list[dict[str, Any]]:
        current = self._master.current
        return current.findings.rows(current.config) if current else []


def _shown(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what nobody is to see."""
    return [{**row, "url": without_credentials(row["url"])} for row in documents]
