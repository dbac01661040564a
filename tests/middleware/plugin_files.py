"""Plug-ins that a test writes down, and a gateway around them."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway import testing
from gateway.errors import StartError
from tests.upstream.peer import live

Scene = Callable[[testing.Gateway], Coroutine[Any, Any, None]]

_PATIENCE = 15.0  # seconds


def written(folder: Path, code: str, name: str = "plug") -> Path:
    """The folder, with this code in a module of it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(textwrap.dedent(code))
    return folder


def layer(kind: str, use: str = "plug:Plug", **keys: Any) -> dict[str, Any]:
    return {"kind": kind, "use": use, **keys}


def play(
    folder: Path,
    code: str,
    scene: Scene,
    layers: Sequence[dict[str, Any]],
    script: testing.Script | None = None,
    config: dict[str, Any] | None = None,
) -> None:
    """Play a scene in a gateway whose layers find their plug-ins in `code`."""

    @live
    async def playing() -> None:
        origin = testing.Origin() if script is None else testing.Origin(script)
        path = [written(folder, code)]
        async with (
            asyncio.timeout(_PATIENCE),
            testing.Gateway(config, middleware=layers, origin=origin, python_path=path) as gateway,
        ):
            await scene(gateway)

    playing()


def complaint(folder: Path, code: str, kind: str) -> str:
    """Why a gateway does not start with this plug-in: one line, without what each such line begins with."""

    async def scene(gateway: testing.Gateway) -> None:
        raise AssertionError("it started")

    with pytest.raises(StartError) as raised:
        play(folder, code, scene, [layer(kind)])
    text, where = str(raised.value), f'all/{kind}#1: {kind} "plug:Plug": '
    assert text.startswith(where) and "\n" not in text, text
    return text.removeprefix(where)
