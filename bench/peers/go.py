"""Go's own ``httputil.ReverseProxy`` with a pool of the usual size; it has no access log."""

import os
import subprocess
from pathlib import Path

from bench.peers.peer import IDLE_UPSTREAM_CONNECTIONS, Launch, Missing, Peer, cache_folder, program, said, version_in

SOURCE = Path(__file__).parent / "programs" / "reverseproxy.go"


class GoReverseProxy(Peer):
    binary = Path()

    def find(self) -> str:
        go = program("go")
        self.binary = cache_folder() / "reverseproxy"
        # One file that uses the standard library alone: it needs no module and nothing from the network.
        build = subprocess.run(
            (go, "build", "-o", str(self.binary), str(SOURCE)),
            env={**os.environ, "GO111MODULE": "off"},
            capture_output=True,
            text=True,
            check=False,
        )
        if build.returncode:
            raise Missing(f"go build failed: {build.stderr.strip()}")
        return version_in(said(go, "version"))

    def launch(self, port: int, origin: int, folder: Path) -> Launch:
        return Launch(
            (str(self.binary), str(port), str(origin), str(IDLE_UPSTREAM_CONNECTIONS)), env={"GOMAXPROCS": "1"}
        )
