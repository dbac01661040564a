"""The listening sockets of the master: which address, which slot, which descriptor.

Knows that a TCP or UDP address has one socket per slot and every other kind one socket for all slots, when to bind,
listen and close, and how to hand the sockets on to an upgraded master. Never knows workers, generations or the
configuration as a whole; the system calls are in `bind.py`, the choice among slots in `steering.py`.

The life of a slot's socket: `socket` binds it (so a worker forked now inherits it), `listen` makes it a member of the
kernel's group, `steer` without the slot lets its queue run empty, `close_slot` ends it. The master keeps its copy all
that time, so a worker that dies takes no waiting connection with it.

One for datagrams is in the kernel's group from bind on; whether its slot gets any is a question of `steer` alone. It
stays in the group while anybody has a copy, so `close_slot` comes last, when no worker has one.

All sockets of one address must be made under one user id: the kernel lets no other id into the group. A master that
gives up root does so before the first `open`, or never.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from socket import MSG_DONTWAIT, MSG_PEEK, SO_ACCEPTCONN, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET
from socket import socket as Socket
from typing import Any, Self, TypedDict

from gateway.config.values import Address, FdAddress, SystemdAddress, TcpAddress, UnixAddress
from gateway.master import bind, steering
from gateway.master.bind import BindError, Inode
from gateway.master.steering import DatagramGroup, Group, queued

__all__ = ["BindError", "HandedOn", "Listening"]


class HandedOn(TypedDict):
    """A `Listening` as JSON. Descriptors keep their numbers across exec if `set_inheritable` was called before it."""

    kind: str
    key: str
    address: dict[str, Any]
    backlog: int
    sockets: list[tuple[int | None, int]]  # slot, descriptor; no slot: bound, not yet asked for
    order: list[int]  # the slots that listen, in the kernel's order
    steered: list[int] | None
    inode: tuple[int, int] | None


class Listening(ABC):
    """All sockets of one configured address.

    `open` and `adopt` make one. Who has it closes it. Sockets are non-blocking and not inherited across exec.
    """

    takes_datagrams = False

    def __init__(self, address: Address, backlog: int) -> None:
        self.address = address
        self.backlog = backlog
        self.key = str(address)  # what it is known by; the master gives another where one address means several sockets

    @staticmethod
    def open(
        address: Address,
        backlog: int,
        *,
        inherited: Mapping[str, Sequence[int]] | None = None,
        datagrams: bool = False,
    ) -> Listening:
        """Bind the address, without listening yet. Raises BindError.

        inherited: the sockets systemd passed, by name. datagrams: they come here, and not connections.
        """
        match address:
            case TcpAddress() if datagrams:
                sock, target = bind.first(address, SOCK_DGRAM)
                return DatagramsPerSlot(address, backlog, target, sock)
            case TcpAddress():
                sock, target = bind.first(address, SOCK_STREAM)
                return PerSlot(address, backlog, target, sock)
            case UnixAddress():
                sock, inode = bind.unix(address)
                return Shared(address, backlog, sock, inode)
            case FdAddress() | SystemdAddress() if datagrams:
                return SharedDatagrams(address, backlog, bind.inherited(address, inherited, SOCK_DGRAM))
            case FdAddress() | SystemdAddress():
                return Shared(address, backlog, bind.inherited(address, inherited))

    @staticmethod
    def adopt(handed_on: HandedOn) -> Listening:
        """What `fds` described, in a process that has the same descriptors. Raises OSError when it has not."""
        made = {kind.__name__: kind for kind in (TcpAddress, UnixAddress, FdAddress, SystemdAddress)}
        address = made[handed_on["kind"]](**handed_on["address"])
        sockets = [(slot, Socket(fileno=fd)) for slot, fd in handed_on["sockets"]]
        for _, sock in sockets:
            sock.setblocking(False)
            sock.set_inheritable(False)
        takes_datagrams = sockets[0][1].type is SOCK_DGRAM
        adopted: Listening
        if isinstance(address, TcpAddress):
            adopted = (DatagramsPerSlot if takes_datagrams else PerSlot).adopted(address, handed_on, sockets)
        else:
            inode = handed_on["inode"]
            kept = Inode(*inode) if inode else None
            kind = SharedDatagrams if takes_datagrams else Shared
            adopted = shared = kind(address, handed_on["backlog"], sockets[0][1], kept)
            shared.share_with(handed_on["order"])
        adopted.key = handed_on["key"]
        return adopted

    @property
    @abstractmethod
    def shared(self) -> bool:
        """Whether there is one queue for all slots, from which whoever is left accepts."""

    @property
    @abstractmethod
    def bound(self) -> str:
        """The real address, with the port the kernel chose for port 0."""

    @property
    @abstractmethod
    def slots(self) -> list[int]:
        """The slots that have a socket here, in rising order."""

    @property
    @abstractmethod
    def listening(self) -> list[int]:
        """Those of them that listen."""

    @abstractmethod
    def socket(self, slot: int) -> Socket:
        """The slot's socket, bound on first asking. Raises BindError. It stays ours: a caller closes only copies."""

    @abstractmethod
    def listen(self, slot: int) -> None:
        """Take connections for this slot from now on. Nothing happens when it does already."""

    @abstractmethod
    def close_slot(self, slot: int) -> None:
        """End the slot's socket; connections that still wait in its queue are reset.

        Its worker must have stopped accepting: a copy it still holds stops to listen as well.
        """

    @abstractmethod
    def steer(self, slots: Collection[int]) -> bool:
        """Send new connections to these slots only. False when that can't be had: then each slot gets its part."""

    @abstractmethod
    def refuse(self) -> None:
        """Let nobody new in while the queues run empty, where that can be had."""

    @abstractmethod
    def admit(self) -> None:
        """Take back `refuse`."""

    @abstractmethod
    def queued(self, slot: int) -> int:
        """Connections that wait to be accepted in this slot (`steering.queued` says what is not counted)."""

    @abstractmethod
    def set_backlog(self, backlog: int) -> None:
        """Another backlog for sockets that listen already, and for those to come."""

    @abstractmethod
    def fds(self) -> HandedOn:
        """What `adopt` needs to go on from here."""

    @abstractmethod
    def set_inheritable(self, inheritable: bool) -> None:
        """Whether the descriptors outlive exec: true just before an upgrade, false again if that fails."""

    @abstractmethod
    def keep_only(self, slot: int | None) -> None:
        """For a child after fork: close this process' copies of all others. Nobody's listening ends by it."""

    @abstractmethod
    def close(self) -> None:
        """End all sockets; remove the file of a unix socket unless somebody replaced it."""


class _PerSlot(Listening):
    """An address with a host and a port: one SO_REUSEPORT socket per slot."""

    address: TcpAddress
    _group: Group | DatagramGroup

    def __init__(self, address: TcpAddress, backlog: int, target: bind.Target, first: Socket) -> None:
        super().__init__(address, backlog)
        self._target = target
        self._port: int = first.getsockname()[1]
        self._bound = bind.text(first)
        # Bound by `open`, so that an address in use shows at once and port 0 is a number; for the first slot that asks.
        self._spare: Socket | None = first
        self._sockets: dict[int, Socket] = {}

    @classmethod
    def adopted(cls, address: TcpAddress, handed_on: HandedOn, sockets: Sequence[tuple[int | None, Socket]]) -> Self:
        first = sockets[0][1]
        target = next(one for one in bind.targets(address, first.type) if one.family == first.family)
        made = cls(address, handed_on["backlog"], target, first)
        made._spare = next((sock for slot, sock in sockets if slot is None), None)
        made._sockets = {slot: sock for slot, sock in sockets if slot is not None}
        made._adopt_group([(slot, made._sockets[slot]) for slot in handed_on["order"]], handed_on["steered"])
        return made

    @abstractmethod
    def _adopt_group(self, order: list[tuple[int, Socket]], steered: list[int] | None) -> None:
        """The group as it is in the kernel."""

    @property
    @abstractmethod
    def _steered(self) -> Collection[int] | None:
        """What `fds` is to say of the steering."""

    @property
    def shared(self) -> bool:
        return False

    @property
    def bound(self) -> str:
        return self._bound

    @property
    def slots(self) -> list[int]:
        return sorted(self._sockets)

    @property
    def listening(self) -> list[int]:
        return sorted(self._group.slots)

    def socket(self, slot: int) -> Socket:
        if slot not in self._sockets:
            sock, self._spare = self._spare, None
            self._sockets[slot] = sock or bind.again(self.address, self._target, self._port)
        return self._sockets[slot]

    def close_slot(self, slot: int) -> None:
        if slot in self._group.slots:
            self._group.remove(slot)
        sock = self._sockets.pop(slot, None)
        if sock is not None:
            sock.close()

    def steer(self, slots: Collection[int]) -> bool:
        return self._group.steer(slots)

    def fds(self) -> HandedOn:
        sockets: list[tuple[int | None, int]] = [(slot, sock.fileno()) for slot, sock in self._sockets.items()]
        if self._spare is not None:
            sockets.append((None, self._spare.fileno()))
        steered = self._steered
        return {
            "kind": type(self.address).__name__,
            "key": self.key,
            "address": dataclasses.asdict(self.address),
            "backlog": self.backlog,
            "sockets": sockets,
            "order": self._group.slots,
            "steered": None if steered is None else sorted(steered),
            "inode": None,
        }

    def _all(self) -> list[Socket]:
        return [*self._sockets.values(), *([self._spare] if self._spare is not None else [])]

    def set_inheritable(self, inheritable: bool) -> None:
        for sock in self._all():
            sock.set_inheritable(inheritable)

    def keep_only(self, slot: int | None) -> None:
        kept = None if slot is None else self._sockets.get(slot)
        for sock in self._all():
            if sock is not kept:
                sock.close()
        self._sockets = {} if slot is None or kept is None else {slot: kept}
        self._spare = None

    def close(self) -> None:
        # From the end of the kernel's order, so that no member moves.
        for slot in reversed(self._group.slots):
            self.close_slot(slot)
        for sock in self._all():
            sock.close()
        self._sockets = {}
        self._spare = None

    def __repr__(self) -> str:
        return f"<Listening {self.bound} slots {self.slots} {self._group!r}>"


class PerSlot(_PerSlot):
    """A TCP address."""

    def __init__(self, address: TcpAddress, backlog: int, target: bind.Target, first: Socket) -> None:
        super().__init__(address, backlog, target, first)
        self._group: Group = Group()

    def _adopt_group(self, order: list[tuple[int, Socket]], steered: list[int] | None) -> None:
        self._group = Group.adopt(order, steered)

    @property
    def _steered(self) -> Collection[int] | None:
        return self._group.wanted

    def listen(self, slot: int) -> None:
        if slot not in self._group.slots:
            self._group.add(slot, self.socket(slot), self.backlog)

    def refuse(self) -> None:
        for sock in self._sockets.values():
            steering.refuse(sock)

    def admit(self) -> None:
        for sock in self._sockets.values():
            steering.admit(sock)

    def queued(self, slot: int) -> int:
        return queued(self._sockets[slot]) if slot in self._group.slots else 0

    def set_backlog(self, backlog: int) -> None:
        self.backlog = backlog
        for slot in self._group.slots:
            self._sockets[slot].listen(backlog)  # a second time it changes the limit and nothing else


class DatagramsPerSlot(_PerSlot):
    """A UDP address. Datagrams wait in the receive buffer of a slot as connections do in a queue."""

    takes_datagrams = True

    def __init__(self, address: TcpAddress, backlog: int, target: bind.Target, first: Socket) -> None:
        super().__init__(address, backlog, target, first)
        self._group: DatagramGroup = DatagramGroup()

    def _adopt_group(self, order: list[tuple[int, Socket]], steered: list[int] | None) -> None:
        self._group = DatagramGroup.adopt(order, steered)

    @property
    def _steered(self) -> Collection[int] | None:
        return self._group.reading

    def socket(self, slot: int) -> Socket:
        sock = super().socket(slot)
        if slot not in self._group.slots:
            self._group.add(slot, sock)
        return sock

    def listen(self, slot: int) -> None:
        """It takes them since it is bound; `steer` says whether it gets any."""
        self.socket(slot)

    def refuse(self) -> None:
        """Nobody knocks before he sends. What comes is for whoever still reads."""

    def admit(self) -> None:
        pass

    def queued(self, slot: int) -> int:
        """1 for one or more."""
        return _has_datagram(self._sockets[slot])

    def set_backlog(self, backlog: int) -> None:
        self.backlog = backlog


class Shared(Listening):
    """A unix socket or one that was inherited: all slots accept from it, and whoever is first has the connection."""

    def __init__(self, address: Address, backlog: int, sock: Socket, inode: Inode | None = None) -> None:
        super().__init__(address, backlog)
        self._sock = sock
        self._bound = bind.text(sock)
        self._inode = inode
        self._slots: set[int] = set()

    def share_with(self, slots: Collection[int]) -> None:
        """These slots use it already."""
        self._slots.update(slots)

    @property
    def shared(self) -> bool:
        return True

    @property
    def bound(self) -> str:
        return self._bound

    @property
    def slots(self) -> list[int]:
        return sorted(self._slots)

    @property
    def listening(self) -> list[int]:
        return self.slots if self._slots and self._listens() else []

    def _listens(self) -> bool:
        return bool(self._sock.getsockopt(SOL_SOCKET, SO_ACCEPTCONN))

    def socket(self, slot: int) -> Socket:
        self._slots.add(slot)
        return self._sock

    def listen(self, slot: int) -> None:
        self._slots.add(slot)
        if not self._listens():  # one that listens already has the backlog its owner gave it
            self._sock.listen(self.backlog)

    def close_slot(self, slot: int) -> None:
        """The socket goes on for the other slots, and for slots to come."""
        self._slots.discard(slot)

    def steer(self, slots: Collection[int]) -> bool:
        """There is one queue, so nothing can wait for a slot that is to be spared."""
        return True

    def refuse(self) -> None:
        """A unix socket knows no such thing, and an inherited one belongs to somebody else, who keeps the queue."""

    def admit(self) -> None:
        pass

    def queued(self, slot: int) -> int:
        return queued(self._sock)

    def set_backlog(self, backlog: int) -> None:
        self.backlog = backlog
        if isinstance(self.address, UnixAddress) and self._listens():
            self._sock.listen(backlog)

    def fds(self) -> HandedOn:
        return {
            "kind": type(self.address).__name__,
            "key": self.key,
            "address": dataclasses.asdict(self.address),
            "backlog": self.backlog,
            "sockets": [(None, self._sock.fileno())],
            "order": self.slots,
            "steered": None,
            "inode": self._inode,
        }

    def set_inheritable(self, inheritable: bool) -> None:
        self._sock.set_inheritable(inheritable)

    def keep_only(self, slot: int | None) -> None:
        if slot not in self._slots:
            self._sock.close()
            self._slots.clear()

    def close(self) -> None:
        self._sock.close()
        self._slots.clear()
        if isinstance(self.address, UnixAddress) and self._inode is not None:
            bind.unlink(self.address, self._inode)

    def __repr__(self) -> str:
        return f"<Listening {self.address} slots {self.slots} one socket for all>"


class SharedDatagrams(Shared):
    """The same for datagrams: each goes to whoever reads first."""

    takes_datagrams = True

    @property
    def listening(self) -> list[int]:
        return self.slots

    def listen(self, slot: int) -> None:
        self._slots.add(slot)

    def queued(self, slot: int) -> int:
        return _has_datagram(self._sock)


def _has_datagram(sock: Socket) -> int:
    try:
        sock.recv(1, MSG_PEEK | MSG_DONTWAIT)
    except BlockingIOError:
        return 0
    return 1
