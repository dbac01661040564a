"""Caddy: one OS thread of Go, access log as JSON (its default format) to a file."""

from pathlib import Path

from bench.peers.peer import IDLE_UPSTREAM_CONNECTIONS, Launch, Peer, program, said, version_in

CONFIG = """\
{{
  admin off
  auto_https off
}}
http://:{port} {{
  bind 127.0.0.1
  log {{
    output file {folder}/access.log
  }}
  reverse_proxy 127.0.0.1:{origin} {{
    transport http {{
      keepalive_idle_conns {idle}
      keepalive_idle_conns_per_host {idle}
    }}
  }}
}}
"""


class Caddy(Peer):
    def find(self) -> str:
        return version_in(said(program("caddy"), "version"))

    def launch(self, port: int, origin: int, folder: Path) -> Launch:
        file = folder / "Caddyfile"
        return Launch(
            (program("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"),
            env={"GOMAXPROCS": "1", "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
            files={file: CONFIG.format(port=port, folder=folder, origin=origin, idle=IDLE_UPSTREAM_CONNECTIONS)},
        )
