"""A Starlette handler around ``httpx.AsyncClient`` under uvicorn, as most people write it: defaults throughout."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

from bench.peers.peer import Launch, Missing, Peer


class StarletteHttpx(Peer):
    def find(self) -> str:
        for package in ("starlette", "httpx", "uvicorn"):
            if importlib.util.find_spec(package) is None:
                raise Missing(f"the package {package} is not installed")
        version = importlib.metadata.version
        return f"{version('starlette')} with httpx {version('httpx')} on uvicorn {version('uvicorn')}"

    def launch(self, port: int, origin: int, folder: Path) -> Launch:
        return Launch(
            (sys.executable, "-m", "uvicorn", "bench.peers.programs.starlette_proxy:app", "--port", str(port)),
            env={"ORIGIN": f"http://127.0.0.1:{origin}"},
        )
