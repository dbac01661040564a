"""The proxies that are compared, one file each. A peer knows how to find itself and how it is started; it never
starts anything for longer than it takes to ask its version, and knows nothing of loads and figures.

The one entry point is the table ``PEERS``; ``peer.py`` holds the contract. Where a peer keeps an access log, people
run it with the log on, so it is on here and goes to a file; ``nginx-nolog`` shows what that costs.
"""

from bench.peers.aiohttp import Aiohttp
from bench.peers.caddy import Caddy
from bench.peers.gateway import Gateway
from bench.peers.go import GoReverseProxy
from bench.peers.haproxy import HAProxy
from bench.peers.nginx import Nginx
from bench.peers.node import NodeHttpProxy
from bench.peers.peer import Peer
from bench.peers.starlette import StarletteHttpx

PEERS: dict[str, Peer] = {
    "gateway": Gateway(),
    "gateway-layers": Gateway(layers=True),
    "nginx": Nginx(access_log=True),
    "nginx-nolog": Nginx(access_log=False),
    "haproxy": HAProxy(),
    "go": GoReverseProxy(),
    "caddy": Caddy(),
    "node": NodeHttpProxy(),
    "aiohttp": Aiohttp(),
    "starlette-httpx": StarletteHttpx(),
}
