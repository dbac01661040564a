"""Memory: what an idle keep-alive connection costs each proxy, and what one more worker costs the gateway."""

from bench.cost import private_memory
from bench.figures import Memory, Workers
from bench.generator import generator
from bench.peers import PEERS
from bench.peers.gateway import Gateway
from bench.serving import Site, serving

IDLE_CONNECTIONS = 2000
WARM_CONNECTIONS = 50
WARM_SECONDS = 1.0
FEW_WORKERS, MANY_WORKERS = 1, 3


def idle_connections(peer: str, at: Site) -> Memory:
    """Open many connections with one request on each, a few at a time: the proxy needs no more connections to
    the origin for them than it had before, and what it then has more of is theirs."""
    with (
        serving(PEERS[peer], at) as (port, pid),
        generator(port, "small", WARM_CONNECTIONS, at) as load,
    ):
        load.run(WARM_SECONDS)
        before = sum(private_memory(pid).values())
        with generator(port, "small", IDLE_CONNECTIONS, at):
            after = sum(private_memory(pid).values())
    return Memory(peer, IDLE_CONNECTIONS, (after - before) / IDLE_CONNECTIONS, before)


def further_workers(at: Site) -> Workers:
    few, many = warm_memory(FEW_WORKERS, at.room("few")), warm_memory(MANY_WORKERS, at.room("many"))
    return Workers(FEW_WORKERS, MANY_WORKERS, sum(few.values()), sum(many.values()), many)


def warm_memory(workers: int, at: Site) -> dict[str, int]:
    """The gateway's private memory by process, once every worker has answered requests."""
    with (
        serving(Gateway(workers), at) as (port, pid),
        generator(port, "small", WARM_CONNECTIONS, at) as load,
    ):
        load.run(WARM_SECONDS)
        # The folder's name in a title tells nothing once the folder is gone.
        return {title.replace(f"{at.folder}/", ""): size for title, size in private_memory(pid).items()}
