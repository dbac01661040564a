"""Which slot's socket gets the next connection of a TCP address, or the datagrams of a client of a UDP address, and how
a socket gets none any more.

Knows how the kernel orders the sockets of a SO_REUSEPORT group, and three classic BPF programs: two pick among them,
one by chance and one by who the client is; the third keeps newcomers out. Never knows addresses, workers or why a slot
is to be spared: `sockets.py` and the master decide that.

The kernel's order, as `net/core/sock_reuseport.c` has it and tests/master/test_steering.py shows on a real kernel:

- a socket joins at the end of the group when it starts to listen (binding alone does not make it a member), one for
  datagrams when it is bound;
- when one leaves, the last one takes its place;
- it leaves when its last copy is closed or, whoever else holds copies, at `shutdown`, which one for datagrams doesn't
  know;
- the program belongs to the group, not to the socket through which it was attached, and outlives that socket;
- an index past the end of the group is no error: the kernel falls back to its hash over all members.
"""

from __future__ import annotations

import array
import contextlib
import socket
import struct
from collections.abc import Collection, Sequence

# asm-generic/socket.h; the socket module has no names for these. Attaching needs no privilege.
_ATTACH_CBPF = 51
_DETACH = 68  # since Linux 5.3
_ATTACH_FILTER = 26
_DETACH_FILTER = 27

# Classic BPF, linux/bpf_common.h and linux/filter.h. One instruction is code, jump if true, jump if false, operand.
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD = 0x00
_LOAD_WORD = 0x20
_LOAD_HALF = 0x28
_LOAD_BYTE = 0x30
_LOAD_KEPT = 0x60
_KEEP = 0x02
_TO_X = 0x07
_ADD = 0x04
_ADD_X = 0x0C
_MULTIPLY = 0x24
_DIVIDE = 0x34
_MODULO = 0x94
_SHIFT_RIGHT = 0x74
_JUMP = 0x05
_JUMP_IF_EQUAL = 0x15
_JUMP_IF_AT_LEAST = 0x35
_JUMP_IF_ANY_BIT = 0x45
_RETURN_A = 0x16
_RETURN = 0x06
_RANDOM = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM: not packet data but a fresh random word
_IP_HEADER = 0xFFF00000  # SKF_NET_OFF: for datagrams a packet begins behind the UDP header, but for this

# linux/tcp.h, struct tcp_info: eight single bytes, then words. For a listening socket the fifth word (tcpi_unacked) is
# the length of its accept queue.
_TCP_INFO_QUEUE = 8 + 4 * 4


def program(picks: Sequence[int]) -> bytes:
    """Instructions which return one of `picks`, each as likely as the others.

    A random number below len(picks) is the answer already as long as the picks have no gap; past each gap a constant is
    added. So the program grows with the gaps (three instructions each), not with the slots.
    """
    ordered = sorted(set(picks))
    if not ordered or ordered[0] < 0:
        raise ValueError(f"no socket to pick among {list(picks)}")
    code = [(_LOAD_WORD, 0, 0, _RANDOM), (_MODULO, 0, 0, len(ordered))]
    shifts = [(rank, pick - rank) for rank, pick in enumerate(ordered)]
    runs = [run for previous, run in zip([(0, 0), *shifts], shifts, strict=False) if run[1] != previous[1]]
    for rank, shift in reversed(runs):  # from the top, so that the first comparison which holds is the right one
        code += [(_JUMP_IF_AT_LEAST, 0, 2, rank), (_ADD, 0, 0, shift), (_RETURN_A, 0, 0, 0)]
    code.append((_RETURN_A, 0, 0, 0))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


# Multipliers of two rounds of hashing, odd and without a pattern (the golden ratio; from MurmurHash3).
_FIRST, _SECOND = 0x9E3779B1, 0x85EBCA6B
_Instructions = list[tuple[int, int, int, int]]
# A number below 2^16 that is always the same for one client, by address and port. A packet with options in its IPv4
# header, or with further headers of IPv6, is told by its address alone.
_WHO: _Instructions = [
    (_LOAD, 0, 0, 0),
    (_KEEP, 0, 0, 0),
    (_LOAD_BYTE, 0, 0, _IP_HEADER),
    (_JUMP_IF_AT_LEAST, 5, 0, 0x60),
    (_JUMP_IF_EQUAL, 0, 2, 0x45),
    (_LOAD_HALF, 0, 0, _IP_HEADER + 20),
    (_KEEP, 0, 0, 0),
    (_LOAD_WORD, 0, 0, _IP_HEADER + 12),
    (_JUMP, 0, 0, 13),
    (_LOAD_BYTE, 0, 0, _IP_HEADER + 6),
    (_JUMP_IF_EQUAL, 0, 2, 17),
    (_LOAD_HALF, 0, 0, _IP_HEADER + 40),
    (_KEEP, 0, 0, 0),
    (_LOAD_WORD, 0, 0, _IP_HEADER + 8),
    (_MULTIPLY, 0, 0, _SECOND),
    (_TO_X, 0, 0, 0),
    (_LOAD_WORD, 0, 0, _IP_HEADER + 12),
    (_ADD_X, 0, 0, 0),
    (_MULTIPLY, 0, 0, _SECOND),
    (_TO_X, 0, 0, 0),
    (_LOAD_WORD, 0, 0, _IP_HEADER + 20),
    (_ADD_X, 0, 0, 0),
    (_MULTIPLY, 0, 0, _FIRST),
    (_TO_X, 0, 0, 0),
    (_LOAD_KEPT, 0, 0, 0),
    (_ADD_X, 0, 0, 0),
    (_MULTIPLY, 0, 0, _SECOND),
    (_SHIFT_RIGHT, 0, 0, 16),
]


def by_client(order: Sequence[int], reading: Collection[int]) -> bytes:
    """Instructions which return the index of the socket that a client's datagrams go to. order: the slots of the group,
    in the kernel's order; reading: those that may be chosen.

    The clients of a slot that reads are nobody else's, whoever else does. Those of one that does not are dealt out
    among the others, and come back with it.
    """
    index = {slot: at for at, slot in enumerate(order)}
    slots = sorted(index)
    chosen = [slot for slot in slots if slot in reading] or slots
    code = [*_WHO, (_KEEP, 0, 0, 0), (_MODULO, 0, 0, len(slots))]
    for place, slot in enumerate(slots):
        if slot in chosen:
            code += [(_JUMP_IF_EQUAL, 0, 1, place), (_RETURN, 0, 0, index[slot])]
    if chosen != slots:
        code += [(_LOAD_KEPT, 0, 0, 0), (_DIVIDE, 0, 0, len(slots)), (_MODULO, 0, 0, len(chosen))]
        for place, slot in enumerate(chosen):
            code += [(_JUMP_IF_EQUAL, 0, 1, place), (_RETURN, 0, 0, index[slot])]
    code.append((_RETURN, 0, 0, index[chosen[0]]))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


def attach(sock: socket.socket, picks: Sequence[int]) -> bool:
    """Have the group of `sock` pick among these indices only. False when the kernel refuses."""
    return attach_program(sock, program(picks))


def attach_program(sock: socket.socket, instructions: bytes) -> bool:
    """Have these choose in the group of `sock`. False when the kernel refuses."""
    code = array.array("B", instructions)
    address, size = code.buffer_info()
    try:
        sock.setsockopt(socket.SOL_SOCKET, _ATTACH_CBPF, struct.pack("@HP", size // _INSTRUCTION.size, address))
    except OSError:
        return False
    return True


# For a listening TCP socket a packet begins with the TCP header. What opens a connection is dropped; handshakes under
# way get through. Connections made later inherit the program, and to them no such packet ever comes.
_NO_NEWCOMERS = b"".join(
    _INSTRUCTION.pack(*instruction)
    for instruction in (
        (_LOAD_BYTE, 0, 0, 13),  # the flags
        (_JUMP_IF_ANY_BIT, 0, 1, 0x02),  # SYN
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, 0xFFFFFFFF),
    )
)


def refuse(sock: socket.socket) -> bool:
    """Let nobody new in, so that the queue can run empty for good. False when the kernel refuses.

    Who knocks hears nothing and knocks again after a second: by then the socket is closed, which says no, or it admits.
    """
    code = array.array("B", _NO_NEWCOMERS)
    address, size = code.buffer_info()
    try:
        sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("@HP", size // _INSTRUCTION.size, address))
    except OSError:
        return False
    return True


def admit(sock: socket.socket) -> None:
    """Take back `refuse`. Nothing happens when there is nothing to take back."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)


def detach(sock: socket.socket) -> bool:
    """Give the choice back to the kernel's hash. False when there was no program, or the kernel is older than 5.3."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _DETACH, 0)
    except OSError:
        return False
    return True


def queued(sock: socket.socket) -> int:
    """Connections that wait in the accept queue. A unix socket does not tell: 0.

    A handshake under way is not in it yet, but belongs to this socket and is lost when it closes: steer away first, and
    close when the queue has been empty for a second or so, not at the first zero.
    """
    if sock.family == socket.AF_UNIX:
        return 0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_QUEUE + 4)
    (length,) = struct.unpack_from("=I", info, _TCP_INFO_QUEUE)
    return int(length)


class Group:
    """The listening sockets of one address, in the kernel's order.

    A socket joins and leaves only through `add` and `remove`, so the order here is the kernel's. That holds as long as
    no other process of the same user joins the group: `bind.py` refuses to start in somebody else's.
    """

    def __init__(self) -> None:
        self._order: list[tuple[int, socket.socket]] = []
        self._wanted: frozenset[int] | None = None  # slots; None: all of them, the kernel's hash chooses
        self._attached: tuple[int, ...] | None = None  # indices the kernel picks among now; None: no program

    @classmethod
    def adopt(cls, order: Sequence[tuple[int, socket.socket]], wanted: Collection[int] | None) -> Group:
        """A group that listens already, with its members in the kernel's order."""
        group = cls()
        group._order = list(order)
        group._wanted = None if wanted is None else frozenset(wanted)
        group._attached = group._picks()
        return group

    @property
    def slots(self) -> list[int]:
        return [slot for slot, _ in self._order]

    @property
    def wanted(self) -> frozenset[int] | None:
        """The slots `steer` last chose; None when the kernel chooses among all."""
        return self._wanted

    def add(self, slot: int, sock: socket.socket, backlog: int) -> None:
        """Start to listen. While the group is steered a newcomer is not chosen until the next `steer`."""
        sock.listen(backlog)
        self._order.append((slot, sock))  # at the end: the indices of the others, and so the program, stay right

    def remove(self, slot: int) -> None:
        """Stop listening; what waits in the queue is reset, so `steer` away and let it run empty first.

        `shutdown` and not only close: a worker may hold a copy, and the kernel's order must change now. It must have
        stopped accepting, for accept fails from here on.
        """
        index = self.slots.index(slot)
        if self._wanted is not None:
            # Between the shutdown and the next program the last index is gone and this one means another socket:
            # for that moment pick only among those that mean the same before and after, if there are any.
            steady = [i for i in self._picks() or () if i not in (index, len(self._order) - 1)]
            if steady:
                self._apply(tuple(steady))
        with contextlib.suppress(OSError):  # ENOTCONN: whoever holds a copy was first, and it has left already
            self._order[index][1].shutdown(socket.SHUT_RDWR)
        self._order[index] = self._order[-1]
        self._order.pop()
        if not self._order:
            self._attached = None  # the kernel frees the group, and its program with it
        if self._wanted is not None:
            self.steer(self._wanted)

    def steer(self, to: Collection[int]) -> bool:
        """Send new connections to these slots only. False when the kernel refuses; then all members get some.

        All members, or none of them: the kernel chooses among all, since there is nothing better to do.
        """
        chosen = frozenset(to).intersection(self.slots)
        self._wanted = None if not chosen or len(chosen) == len(self._order) else chosen
        return self._apply(self._picks())

    def _picks(self) -> tuple[int, ...] | None:
        if self._wanted is None:
            return None
        return tuple(i for i, (slot, _) in enumerate(self._order) if slot in self._wanted)

    def _apply(self, picks: tuple[int, ...] | None) -> bool:
        if picks == self._attached:
            return True
        _, sock = self._order[0]
        done = detach(sock) if picks is None else attach(sock, picks)
        if done:
            self._attached = picks
        return done

    def __repr__(self) -> str:
        way = "hash" if self._wanted is None else f"steered to {sorted(self._wanted)}"
        return f"<Group slots {self.slots} {way}>"


class DatagramGroup:
    """The sockets of one UDP address, in the kernel's order. They are in the kernel's group from bind to their last
    copy's end, so `add` and `remove` must be told of that when it happens.

    Without a program the kernel's hash would choose among all that are bound, also those that nobody reads yet or any
    more, and each change of their number would move nearly every client to another.
    """

    def __init__(self) -> None:
        self._order: list[tuple[int, socket.socket]] = []
        self._reading: frozenset[int] = frozenset()
        self._attached: tuple[list[int], frozenset[int]] | None = None  # what the program there was made of

    @classmethod
    def adopt(cls, order: Sequence[tuple[int, socket.socket]], reading: Collection[int] | None) -> DatagramGroup:
        """A group that exists already, with its members in the kernel's order."""
        group = cls()
        group._order = list(order)
        group._reading = frozenset(reading or ())
        return group

    @property
    def slots(self) -> list[int]:
        return [slot for slot, _ in self._order]

    @property
    def reading(self) -> frozenset[int]:
        """The slots `steer` last chose."""
        return self._reading

    def add(self, slot: int, sock: socket.socket) -> None:
        """It was bound. Once the group was steered, a newcomer is not chosen until the next `steer`."""
        self._order.append((slot, sock))

    def remove(self, slot: int) -> None:
        """Its last copy is about to be closed; what waits in it is lost, so `steer` away and let it be read first."""
        index = self.slots.index(slot)
        self._order[index] = self._order[-1]
        self._order.pop()
        if self._order:
            self.steer(self._reading)
        else:
            self._attached = None  # the kernel frees the group, and its program with it

    def steer(self, to: Collection[int]) -> bool:
        """Send datagrams to these slots only; to all when these are none of them. False when the kernel refuses."""
        self._reading = frozenset(to)
        wanted = self.slots, self._reading
        if not self._order or wanted == self._attached:
            return True
        if not attach_program(self._order[0][1], by_client(*wanted)):
            return False
        self._attached = wanted
        return True

    def __repr__(self) -> str:
        return f"<DatagramGroup slots {self.slots} steered to {sorted(self._reading)}>"
