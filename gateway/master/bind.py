"""One bound socket for one configured address, for connections or for datagrams.

Knows address families, what to ask of the kernel, and how to say in one sentence why it said no. Never knows slots,
steering or workers: `sockets.py` does. The master resolves no names, since a lookup may block for seconds: a host is an
IP literal, `localhost`, or empty.

Which addresses a listener takes:

| written | IPv4 | IPv6 |
|---|---|---|
| `:80`, `[::]:80` | all | all; without IPv6 in the kernel just IPv4 |
| `0.0.0.0:80` | all | none |
| `localhost:80` | 127.0.0.1 | none |
| `10.0.0.1:80` | that one | none |
| `[2001:db8::1]:80`, `[fe80::1%eth0]:80` | none | that one |

So `0.0.0.0:80` and `[::]:80` are in each other's way, as in Go's `net.Listen` and unlike nginx, where `[::]` is IPv6
only; `:80` alone replaces such a pair. The `net.ipv6.bindv6only` sysctl changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.config.values import Address, FdAddress, SystemdAddress, TcpAddress, UnixAddress
from gateway.errors import StartError


class BindError(StartError):
    """The master can't listen on an address."""

    def __init__(self, address: Address, reason: str) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")
        self.address = address
        self.reason = reason


class Target(NamedTuple):
    """An address as the kernel takes it. kind: of the socket, a stream or datagrams."""

    family: socket.AddressFamily
    host: str
    v6only: bool = False
    kind: socket.SocketKind = socket.SOCK_STREAM


# What a socket for datagrams may keep until its worker has time for it, for as long as a successor takes to come up.
# Without CAP_NET_ADMIN the kernel grants no more than net.core.rmem_max, which is what it has by itself, 208 KiB.
_RECEIVE_BUFFER = 4 * 1024 * 1024
_RCVBUFFORCE = 33  # asm-generic/socket.h
_PKTINFO = 8  # linux/in.h


def targets(address: TcpAddress, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[Target]:
    """What to bind for this address; a second entry is for machines without IPv6."""
    host = {"": "::", "localhost": "127.0.0.1"}.get(address.host, address.host)
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise BindError(address, "the host must be an IP address, localhost or empty, not a name") from None
    if ip == ipaddress.IPv6Address("::"):
        return [Target(socket.AF_INET6, "::", kind=kind), Target(socket.AF_INET, "0.0.0.0", kind=kind)]
    if ip.version == 4:
        return [Target(socket.AF_INET, host, kind=kind)]
    return [Target(socket.AF_INET6, host, v6only=True, kind=kind)]


def first(address: TcpAddress, kind: socket.SocketKind) -> tuple[socket.socket, Target]:
    """The first socket of an address, bound but not listening, and the target to give `again` for further ones."""
    last = OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    for target in targets(address, kind):
        try:
            if address.port:
                _refuse_company(target, address.port)
            return _bound(target, address.port), target
        except OSError as error:
            last = error
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                break
    raise BindError(address, reason(last, address.port)) from last


def again(address: TcpAddress, target: Target, port: int) -> socket.socket:
    """One more socket of the same group. The kernel wants it made by the same user id as the first."""
    try:
        return _bound(target, port)
    except OSError as error:
        raise BindError(address, reason(error, port)) from error


def _bound(target: Target, port: int, *, reuseport: bool = True) -> socket.socket:
    sock = socket.socket(target.family, target.kind)
    is_stream = target.kind is socket.SOCK_STREAM
    try:
        # Also without company: connections of an earlier run in TIME_WAIT hold the port otherwise. For datagrams there
        # is no such thing, and this would let others of the same mind in.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(is_stream))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuseport))
        if target.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(target.v6only))
        # Accepted sockets inherit this one. TCP_DEFER_ACCEPT is left alone on purpose: a connection without data would
        # stay out of the accept queue, where a drain can't see it, and peers that only connect (health checks, tunnels
        # whose server speaks first) would hang.
        if is_stream:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            _enlarge(sock)
        sock.setblocking(False)
        # Numeric, so no lookup; it turns the zone of fe80::1%eth0 into the number of an interface.
        found = socket.getaddrinfo(target.host, port, target.family, target.kind, flags=socket.AI_NUMERICHOST)
        sock.bind(found[0][4])
        if not is_stream:
            _tell_who_was_asked(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _enlarge(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _RECEIVE_BUFFER)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)


def _tell_who_was_asked(sock: socket.socket) -> None:
    """Where a socket takes datagrams to any address, each says which one it was sent to: the answer must come from
    there."""
    if not ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_unspecified:
        return
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _PKTINFO, 1)


def _refuse_company(target: Target, port: int) -> None:
    """Fail when anybody listens here already.

    With SO_REUSEPORT a second gateway of the same user would join the group of the first without an error and take a
    part of its connections. Without it bind fails, whatever the listener has set.
    """
    _bound(target, port, reuseport=False).close()


def reason(error: OSError, port: int | None = None) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "address already in use"
        case errno.EACCES | errno.EPERM if port is not None and port < 1024:
            return "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE or root)"
        case errno.EACCES | errno.EPERM:
            return "permission denied"
        case errno.EADDRNOTAVAIL:
            return "no interface of this machine has this address"
        case errno.EAFNOSUPPORT:
            return "this machine has no IPv6"
        case errno.EMFILE | errno.ENFILE:
            return "no file descriptor left"
        case _:
            if isinstance(error, socket.gaierror):  # the host is a literal, so only its zone can be unknown
                return "no such network interface"
            return (error.strerror or str(error)).lower()


class Inode(NamedTuple):
    """Which file a path named when it was ours."""

    device: int
    number: int

    @classmethod
    def of(cls, path: str) -> Inode | None:
        try:
            found = os.lstat(path)
        except OSError:
            return None
        return cls(found.st_dev, found.st_ino)


def unix(address: UnixAddress) -> tuple[socket.socket, Inode | None]:
    """A unix socket, bound but not listening, and the file it made.

    The file gets mode 0666: who may connect is a question of the directory's mode, as with nginx and HAProxy. A file
    left behind by a run that died is replaced; one that somebody answers on is not, nor is any other kind of file.
    """
    _clear_stale(address)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(address.path)
        Path(address.path).chmod(0o666)  # bind applied the umask; nobody can have connected yet
    except OSError as error:
        sock.close()
        raise BindError(address, _unix_reason(error, address)) from error
    return sock, Inode.of(address.path)


def _unix_reason(error: OSError, address: UnixAddress) -> str:
    if error.errno is None:  # Python itself refuses a path longer than sun_path
        return "the path of a unix socket has at most 107 bytes"
    if error.errno == errno.ENOENT:
        return f"the directory {Path(address.path).parent} does not exist"
    return reason(error)


def _clear_stale(address: UnixAddress) -> None:
    path = Path(address.path)
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise BindError(address, "a file that is not a socket is in the way")
    except OSError:
        return  # nothing there, or bind will say what is wrong
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)  # a full queue answers EAGAIN instead of making the master wait: alive, too
        error = caller.connect_ex(address.path)
    if error == errno.ECONNREFUSED:
        try:
            path.unlink(missing_ok=True)
        except OSError as refused:  # left behind by somebody else
            raise BindError(address, reason(refused)) from refused
    elif error in (errno.EACCES, errno.EPERM):
        raise BindError(address, "permission denied")
    elif error != errno.ENOENT:
        raise BindError(address, "address already in use")


def unlink(address: UnixAddress, inode: Inode) -> None:
    """Remove the file, unless another one has taken the path since."""
    if Inode.of(address.path) == inode:
        with contextlib.suppress(OSError):
            Path(address.path).unlink()


def inherited(
    address: FdAddress | SystemdAddress,
    named: Mapping[str, Sequence[int]] | None = None,
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> socket.socket:
    """A socket that somebody else bound and keeps: handed down as a descriptor, or by systemd under a name.

    named: what `systemd.listen_fds` found. A copy is taken, so the same descriptor can be asked for again after a
    reload dropped and brought back the listener.
    """
    fd = address.fd if isinstance(address, FdAddress) else _by_name(address, named or {})
    try:
        copy = os.dup(fd)
    except OSError as error:
        raise BindError(address, f"descriptor {fd} is not open") from error
    try:
        sock = socket.socket(fileno=copy)
    except OSError as error:
        os.close(copy)
        raise BindError(address, f"descriptor {fd} is not a socket") from error
    if not _can_listen(sock, kind):
        sock.close()
        wanted = "bound or listening stream" if kind is socket.SOCK_STREAM else "bound datagram"
        raise BindError(address, f"descriptor {fd} is not a {wanted} socket")
    if kind is socket.SOCK_DGRAM:
        _tell_who_was_asked(sock)
    sock.setblocking(False)
    return sock


def _by_name(address: SystemdAddress, named: Mapping[str, Sequence[int]]) -> int:
    fds = named.get(address.name, ())
    if len(fds) == 1:
        return fds[0]
    if fds:
        raise BindError(
            address,
            f"systemd passed {len(fds)} sockets of this name: give each its own .socket unit and FileDescriptorName",
        )
    others = ", ".join(sorted(named)) or "none"
    raise BindError(address, f"systemd passed no socket of this name (FileDescriptorName; passed: {others})")


def _can_listen(sock: socket.socket, kind: socket.SocketKind) -> bool:
    is_stream = kind is socket.SOCK_STREAM
    families = (socket.AF_INET, socket.AF_INET6, *([socket.AF_UNIX] if is_stream else []))
    if sock.family not in families or sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != kind:
        return False
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return True
    try:
        sock.getpeername()
    except OSError:  # neither listening nor connected: bound, or listen() would pick a port nobody knows
        name = sock.getsockname()
        return bool(name[1]) if sock.family != socket.AF_UNIX else bool(name)
    return False


def text(sock: socket.socket) -> str:
    """Where a socket really is bound: with the port that the kernel chose for port 0."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
