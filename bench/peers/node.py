"""node's http-proxy package with an agent that keeps connections; it has no access log."""

import json
import subprocess
from pathlib import Path

from bench.peers.peer import IDLE_UPSTREAM_CONNECTIONS, Launch, Missing, Peer, cache_folder, program, said, version_in

SOURCE = Path(__file__).parent / "programs" / "node_proxy.js"
TIME_TO_FETCH = 120.0


class NodeHttpProxy(Peer):
    def find(self) -> str:
        node = version_in(said(program("node"), "--version"))
        package = self.modules() / "http-proxy" / "package.json"
        if not package.exists():
            self.fetch()
        version = json.loads(package.read_text())["version"]
        return f"{version} on node {node}"

    def modules(self) -> Path:
        return cache_folder() / "node" / "node_modules"

    def fetch(self) -> None:
        folder = self.modules().parent
        folder.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(
                (program("npm"), "install", "--no-audit", "--no-fund", "--prefix", str(folder), "http-proxy"),
                cwd=folder,
                capture_output=True,
                timeout=TIME_TO_FETCH,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Missing("npm install http-proxy failed") from error

    def launch(self, port: int, origin: int, folder: Path) -> Launch:
        return Launch(
            (program("node"), str(SOURCE), str(port), str(origin), str(IDLE_UPSTREAM_CONNECTIONS)),
            env={"NODE_PATH": str(self.modules())},
        )
