"""The targets, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz import chunks, forward, hello, preface, proxy, response, seeds, server, socks, tokens
from tests.fuzz.loop import Loop


@dataclass(frozen=True, slots=True)
class Target:
    """run: play an input; raises whatever is wrong."""

    name: str
    run: Callable[[Loop, bytes], object]
    seeds: tuple[bytes, ...]


TARGETS = {
    one.name: one
    for one in (
        Target("server", server.run, seeds.SERVER),
        Target("proxy", proxy.run, seeds.PROXY),
        Target("forward", forward.run, seeds.FORWARD),
        Target("response", response.run, seeds.RESPONSE),
        Target("chunks", chunks.run, seeds.CHUNKS),
        Target("tokens", tokens.run, tokens.SEEDS),
        Target("hello", hello.run, hello.SEEDS),
        Target("socks", socks.run, socks.SEEDS),
        Target("preface", preface.run, preface.SEEDS),
    )
}
