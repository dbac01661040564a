"""aiohttp on both sides, on uvloop, bodies streamed; its access log is off, as nothing asks for it."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

from bench.peers.peer import Launch, Missing, Peer


class Aiohttp(Peer):
    def find(self) -> str:
        if importlib.util.find_spec("aiohttp") is None:
            raise Missing("the package aiohttp is not installed")
        return importlib.metadata.version("aiohttp")

    def launch(self, port: int, origin: int, folder: Path) -> Launch:
        return Launch((sys.executable, "-m", "bench.peers.programs.aiohttp_proxy", str(port), str(origin)))
