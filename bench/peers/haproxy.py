"""HAProxy: one thread, connections to the origin always reused, its HTTP log on."""

from pathlib import Path

from bench.peers.peer import Launch, Peer, program, said, version_in

# HAProxy logs to syslog or to a descriptor; its standard output is the log file here.
CONFIG = """\
global
  nbthread 1
  maxconn 8000
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  option forwardfor
  http-reuse always
  timeout connect 10s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
frontend web
  bind 127.0.0.1:{port} backlog 4096
  default_backend app
backend app
  server app 127.0.0.1:{origin}
"""


class HAProxy(Peer):
    def find(self) -> str:
        return version_in(said(program("haproxy"), "-v"))

    def launch(self, port: int, origin: int, folder: Path) -> Launch:
        file = folder / "haproxy.cfg"
        return Launch(
            (program("haproxy"), "-db", "-f", str(file)),
            files={file: CONFIG.format(port=port, origin=origin)},
        )
