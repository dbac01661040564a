"""The ledger: one shared memory map of what is counted by key over all workers, exactly: how much of a rate was spent
lately, how many requests hold something at this moment, and which endpoint somebody was given who is to keep it.

The master makes it before the first fork (a memfd) and hands it on across an upgrade, so what it says outlives reloads,
crashes and upgrades. Whoever changes an account holds a POSIX record lock on one byte that stands for it, which the
kernel drops when its holder dies; nobody ever holds two. It is held for a few microseconds and nothing waits meanwhile.
(Closing any descriptor of the file drops all locks that a process has on it. Nobody does while he holds one.)

A holder that is stopped or frozen keeps its lock. So nobody waits for one longer than _PATIENCE: then he does without
what he would have done with it. What processes count at the same moment may then be lost, so a limit errs on the side
of letting pass, for the 16 accounts of one bucket, while a process stands still in the middle of it. The others go on.

A key is any bytes. It is told by 128 bits of a keyed hash whose secret is in the map: nobody outside can aim at a
bucket, and nobody can tell from the map who was here. A bucket has room for 16 keys. Its words are aligned 64 bits:

    16 x [key: high word, low word]   16 x [value]

An account that exists is changed by one store. A new one takes the place of another in this order: high word 0, low
word, value, high word. So whatever store a SIGKILL comes before, a bucket holds whole accounts, or a place without a
key, which nobody believes. Processors keep to the order: a process ends between two instructions, not among them.

Pages that nobody has touched cost nothing: an empty ledger takes two pages of memory, though 1.5 GiB of addresses; a
full one 24 MiB for rates, 12 MiB for choices, and 3 MiB for each worker that holds 20,000 keys.
"""

from __future__ import annotations

import mmap
import os
import struct
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf
from hashlib import blake2b
from time import monotonic_ns, sleep

from gateway.scoreboard import SEATS, Cells, Fact, Scoreboard, Word

WAYS = 16
_BUCKET = WAYS * 24  # bytes
_KEYS = WAYS * 16  # bytes of it before the values
_BUCKETS = 1 << 16  # for rates: a million keys; while there are half as many, 4 of 1000 buckets are full
# For the holds of one seat. A worker has 20,000 connections at the most unless it is told otherwise, so as many keys at
# a time for each limit a request comes to: with two limits that is one bucket too full in 8 such workers.
_AREA_BUCKETS = 8192
_AREA_HEADER = 4096
_AREA = _AREA_HEADER + _AREA_BUCKETS * _BUCKET  # 3 MiB
_HEADER = 4096
_HOLDS = _HEADER + _BUCKETS * _BUCKET  # where they begin
# For choices, apart from the rates: whoever has one port after another must not drive these out. Half a million.
_CHOICE_BUCKETS = 1 << 15
_CHOICES = _HOLDS + SEATS * _AREA  # where they begin
_SIZE = _CHOICES + _CHOICE_BUCKETS * _BUCKET
_MAGIC = 0x47_41_54_45_4C_45_44_33  # "GATELED3"; the last digit changes with the layout
# Cells of the header.
_MAGIC_CELL = 0
EVICTED_CELL = 1
_SECRET = 16  # bytes from the beginning
_SECRET_SIZE = 32
# What the bytes that are locked stand for: bucket by bucket, from here on the hashes of keys that are held, the header,
# and the buckets of choices. They need not lie within the file.
_LOCKS_OF_HOLDS = 1 << 40
_LOCK_OF_HEADER = 1 << 41
_LOCKS_OF_CHOICES = 1 << 42
# The lower bits of the value of a choice say what was chosen, those above until when it holds: nanoseconds, rounded up
# to the next of these, 1.07 s. So of two choices the one that ends sooner is still the lesser value, by a second or so.
TAG = 30
_TAGS = (1 << TAG) - 1
# Nanoseconds for which to wait for a lock, on the event loop. A holder that runs needs microseconds, one that others
# have driven from its processor comes back to it after milliseconds: on a busy machine more than ten, and counts were
# lost when that was all. Who was waited for in vain is for some seconds waited for only as long as one that runs needs.
_PATIENCE = 50_000_000
_IMPATIENCE = 50_000
_MEMORY = 5_000_000_000
_SPINS = 2
_NAP = 0.00005  # seconds
_LEAST_NAPS = 20  # for time passes also while this process itself is kept from its processor
_TRIES = LOCK_EX | LOCK_NB
# Keys of which the hash is remembered, since the same ones come again; emptied when full. Hashing costs 1 us.
_MOST_KNOWN = 4096
_LONGEST_KNOWN = 256

_VALUES = struct.Struct(f"={WAYS}Q")
_HASH = struct.Struct("=QQ")
_WORD = struct.Struct("=Q")
_NO_KEY = bytes(8)
# A word of a hold: how many, and above that since when somebody waits, by the monotonic clock, in units of 16 us, which
# have 44 bits until a machine has been up for nine years.
_COUNT = 20
_MOST_HELD = (1 << _COUNT) - 1
_FINENESS = 14
_NEVER = 1 << 44
# Nanoseconds without a beat after which a worker with somebody who waits is passed over.
_STILL = 1_000_000_000
# An IntEnum as an index costs 0.1 us.
_PID, _STARTED, _GENERATION, _BEAT = int(Fact.PID), int(Fact.STARTED), int(Fact.GENERATION), int(Fact.BEAT)
_SEATS_USED = int(Word.SEATS_USED)


class Ledger:
    """Accounts of rates. They are kept by GCRA (ITU-T I.371): the value is the theoretical arrival time, at which
    everything that was spent has come back, on CLOCK_MONOTONIC, which is the same in all processes; so an account of
    the past says nothing, and one that begins has the whole burst.

    All amounts are nanoseconds: what one unit costs is the time in which the rate yields one.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        self._cells: Cells = memoryview(self._map).cast("Q")
        self._known: dict[bytes, tuple[bytes, int, int]] = {}
        self._stuck: dict[int, int] = {}  # by lock that was waited for in vain: until when that is remembered
        self._hash = blake2b(key=self._map[_SECRET : _SECRET + _SECRET_SIZE], digest_size=16)
        self._holds: Holds | None = None

    @classmethod
    def create(cls) -> Ledger:
        fd = os.memfd_create("gateway-ledger", os.MFD_CLOEXEC)
        os.ftruncate(fd, _SIZE)
        os.pwrite(fd, _WORD.pack(_MAGIC), _MAGIC_CELL * 8)
        os.pwrite(fd, os.urandom(_SECRET_SIZE), _SECRET)
        return cls(fd)

    @classmethod
    def adopt(cls, fd: int) -> Ledger | None:
        """The ledger another program left in fd; None when its layout is not ours."""
        if os.fstat(fd).st_size != _SIZE or os.pread(fd, 8, _MAGIC_CELL * 8) != _WORD.pack(_MAGIC):
            return None
        return cls(fd)

    def close(self) -> None:
        """Let go of it. It must not be used any more."""
        self._cells.release()
        self._map.close()
        fd, self.fd = self.fd, -1
        os.close(fd)

    def __del__(self) -> None:
        if self.fd >= 0:  # nobody has closed it; a process that makes many keeps none it does not know of
            os.close(self.fd)

    @property
    def evicted(self) -> int:
        """Accounts that had something to say and had to go, since all places of their bucket were taken."""
        return int(self._cells[EVICTED_CELL])

    def sit(self, board: Scoreboard, number: int) -> None:
        """This process sits on that seat of the board: what it holds is written there, and who else lives is known."""
        self._holds = Holds(self, board, number)

    @property
    def holds(self) -> Holds:
        """What requests hold. Without a seat: only those of this process."""
        if self._holds is None:
            self._holds = Holds(self, None, 0)
        return self._holds

    # Rates.

    def spend(self, key: bytes, cost: int, depth: int, now: int | None = None) -> int:
        """Take cost from an account that holds depth at the most. Returns what is left then, 0 or more; or, if there is
        not as much, takes nothing and returns the time until there is, as a negative number.

        An account that owes more than depth, since its limit was a wider one before a reload, becomes an empty one:
        from then on it fills up at the rate of now.
        """
        known = self._known.get(key)
        digest, at, lock = known if known is not None else self._place(key)
        fd = self.fd
        try:
            lockf(fd, _TRIES, 1, lock)
        except OSError:
            self._wait(lock)
        try:
            if now is None:
                now = monotonic_ns()  # read under the lock, so that times of one account only rise
            found = self._map[at : at + _KEYS].find(digest)
            if found >= 0 and not found & 15:
                cell = (at + _KEYS + (found >> 1)) >> 3
                due = self._cells[cell] - now
                if due < 0:
                    due = 0
                elif due > depth:
                    due = depth
                    self._cells[cell] = now + due
                due += cost
                if due > depth:
                    return depth - due
                self._cells[cell] = now + due
                return depth - due
            if cost > depth:
                return depth - cost
            if self._open(at, digest, now + cost, now):
                self._count_eviction()
            return depth - cost
        finally:
            lockf(fd, LOCK_UN, 1, lock)

    def owe(self, key: bytes, cost: int, depth: int, now: int | None = None) -> int:
        """Take cost from an account, whether it is there or not. Returns for how long to wait until it is."""
        digest, at, lock = self._known.get(key) or self._place(key)
        self._lock(lock)
        try:
            if now is None:
                now = monotonic_ns()
            cell = self._find(at, digest)
            if cell < 0:
                due = cost
                if self._open(at, digest, now + due, now):
                    self._count_eviction()
            else:
                due = max(self._cells[cell] - now, 0) + cost
                self._cells[cell] = now + due
            return max(due - depth, 0)
        finally:
            lockf(self.fd, LOCK_UN, 1, lock)

    def refund(self, key: bytes, cost: int) -> None:
        """Give back what was taken and not used."""
        digest, at, lock = self._known.get(key) or self._place(key)
        self._lock(lock)
        try:
            cell = self._find(at, digest)
            if cell >= 0:
                self._cells[cell] = max(self._cells[cell] - cost, 0)
        finally:
            lockf(self.fd, LOCK_UN, 1, lock)

    def owed(self, key: bytes, now: int | None = None) -> int:
        """The time until everything that was spent has come back."""
        digest, at, _ = self._known.get(key) or self._place(key)
        cell = self._find(at, digest)
        return max(self._cells[cell] - (monotonic_ns() if now is None else now), 0) if cell >= 0 else 0

    # Choices.

    def choose(self, key: bytes, tag: int, ns: int, now: int | None = None) -> None:
        """Let everybody know what was chosen for a key, for so many nanoseconds. tag: 0 < tag < 2^TAG; 0 to forget."""
        digest, at, lock = self._choice(key)
        self._lock(lock)
        try:
            if now is None:
                now = monotonic_ns()
            until = (((now + ns) >> TAG) + 1) << TAG
            cell = self._find(at, digest)
            if not tag:
                if cell >= 0:
                    self._cells[cell] = 0
            elif cell >= 0:
                self._cells[cell] = until | tag
            else:
                self._open(at, digest, until | tag, now)
        finally:
            lockf(self.fd, LOCK_UN, 1, lock)

    def chosen(self, key: bytes, now: int | None = None) -> int:
        """What was chosen for a key, 0 when that is not known any more. Needs no lock: a word is written after its
        key."""
        digest, at, _ = self._choice(key)
        cell = self._find(at, digest)
        if cell < 0:
            return 0
        word = int(self._cells[cell])
        if word <= (monotonic_ns() if now is None else now) or self._find(at, digest) != cell:
            return 0  # it is over, or the place was given to another key meanwhile
        return word & _TAGS

    def _choice(self, key: bytes) -> tuple[bytes, int, int]:
        """As `_place`; but hardly any key of this kind comes again soon."""
        digest = self._digest(key)
        number = int.from_bytes(digest[8:], "little") % _CHOICE_BUCKETS
        return digest, _CHOICES + number * _BUCKET, _LOCKS_OF_CHOICES + number

    def _lock(self, lock: int) -> None:
        try:
            lockf(self.fd, _TRIES, 1, lock)
        except OSError:
            self._wait(lock)

    def _wait(self, lock: int) -> None:
        """Somebody else has this lock. Returns with it, or without when its holder seems to stand still."""
        now = monotonic_ns()
        if now < self._stuck.get(lock, 0):
            end, least = now + _IMPATIENCE, 0
        else:
            end, least = now + _PATIENCE, _SPINS + _LEAST_NAPS
        tries = 0
        while tries < least or now < end:
            tries += 1
            if tries <= _SPINS:
                os.sched_yield()
            else:
                sleep(_NAP)  # so that a holder that waits for this processor gets it
            try:
                lockf(self.fd, _TRIES, 1, lock)
            except OSError:
                now = monotonic_ns()
            else:
                self._stuck.pop(lock, None)
                return
        if len(self._stuck) >= _MOST_KNOWN:
            self._stuck.clear()
        if now >= self._stuck.get(lock, 0):
            self._stuck[lock] = now + _MEMORY

    def _place(self, key: bytes) -> tuple[bytes, int, int]:
        """The hash of a key, where its bucket begins, and the byte to lock for it."""
        digest = self._digest(key)
        number = int.from_bytes(digest[8:], "little") % _BUCKETS
        known = (digest, _HEADER + number * _BUCKET, number)
        if len(key) <= _LONGEST_KNOWN:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = known
        return known

    def _digest(self, key: bytes) -> bytes:
        state = self._hash.copy()
        state.update(key)
        digest = state.digest()
        return digest if digest[:8] != _NO_KEY else b"\1" + digest[1:]  # 0 there says that there is no key

    def _find(self, at: int, digest: bytes) -> int:
        """The cell of a key's value in the bucket that begins there; negative when it has none."""
        found = self._map[at : at + _KEYS].find(digest)
        if found < 0 or found & 15:  # across two keys: 2^-60 for a whole table, and then it is as if it had none
            return -1
        return (at + _KEYS + (found >> 1)) >> 3

    def _open(self, at: int, digest: bytes, value: int, now: int) -> bool:
        """Begin an account in place of the one that says least: one that is over, or will be soonest. Whether that had
        something to say."""
        values = _VALUES.unpack_from(self._map, at + _KEYS)
        least = min(values)
        way = values.index(least)
        cells = self._cells
        keys = (at >> 3) + 2 * way
        had_key = cells[keys]
        first, second = _HASH.unpack(digest)
        cells[keys] = 0
        cells[keys + 1] = second
        cells[(at + _KEYS) // 8 + way] = value
        cells[keys] = first
        return least > now and bool(had_key)

    def _count_eviction(self) -> None:
        # The one case of a lock within a lock; this one is always the last.
        self._lock(_LOCK_OF_HEADER)
        try:
            self._cells[EVICTED_CELL] += 1
        finally:
            lockf(self.fd, LOCK_UN, 1, _LOCK_OF_HEADER)


class Holds:
    """How many requests hold a key, over all workers, and who waits for one.

    Each seat of the scoreboard has an area of its own, which only the process that sits there writes: a table of
    buckets as above, whose values are counts, and above _COUNT bits of those the time since which somebody waits in
    that process. The area begins with the incarnation that it is of, so what a dead one has left counts nothing from
    the moment at which the master buries it, nor when somebody else sits down there. Who wants one more adds up the
    areas of all that live, under the lock of the key.
    """

    def __init__(self, ledger: Ledger, board: Scoreboard | None, number: int) -> None:
        self._ledger = ledger
        self._board = board
        self._mine: dict[bytes, Held] = {}
        self._area = _HOLDS + number * _AREA
        self._number = number
        self._seat = board.seat(number) if board is not None else None
        self._others: list[tuple[Cells, int]] = []  # seats, and where their areas begin
        self._used = 0
        # Not the PID on the board: the master writes that when it has time to.
        started = self._seat[Fact.STARTED] if self._seat is not None else 0
        ledger._cells[self._area >> 3] = 0
        ledger._map.madvise(mmap.MADV_REMOVE, self._area, _AREA)  # the predecessor's; zeros from here on
        ledger._cells[self._area >> 3] = _incarnation(os.getpid(), started)

    def take(self, key: bytes, most: int, since: int = 0) -> bool:
        """Hold a key once more, unless it is held `most` times, or another worker has somebody who has waited longer.
        since: since when he who wants it has waited (`waiting_since`), 0 for one who has just come."""
        ledger = self._ledger
        digest, _, _ = ledger._known.get(key) or ledger._place(key)
        lock = _LOCKS_OF_HOLDS + int.from_bytes(digest[:4], "little")
        mine = self._mine.get(key)
        ledger._lock(lock)
        try:
            count = mine.count if mine is not None else 0
            if count >= most or count + self._held_by_others(digest, since or _NEVER) >= most:
                return False
            if mine is None:
                self._mine[key] = Held(self._open(digest, 1), 1)
            else:
                mine.count = count + 1
                self._write(mine)
            return True
        finally:
            lockf(ledger.fd, LOCK_UN, 1, lock)

    def release(self, key: bytes) -> None:
        """Hold it once less. Needs no lock: nobody else writes here, and whoever adds up meanwhile sees the one number
        or the other."""
        mine = self._mine[key]
        mine.count -= 1
        self._write(mine)
        if not (mine.count or mine.since):
            del self._mine[key]

    def wait(self, key: bytes, since: int) -> None:
        """Let the others know since when the first one here has waited for a key; 0: nobody does any more."""
        mine = self._mine.get(key)
        if mine is None:
            if not since:
                return
            mine = self._mine[key] = Held(self._open(self._ledger._digest(key), since << _COUNT), 0)
        mine.since = since
        self._write(mine)
        if not (mine.count or since):
            del self._mine[key]

    def count(self, key: bytes) -> int:
        """How many hold it now."""
        mine = self._mine.get(key)
        return (mine.count if mine is not None else 0) + self._held_by_others(self._ledger._digest(key), 0)

    def _write(self, mine: Held) -> None:
        if mine.cell >= 0:
            self._ledger._cells[mine.cell] = mine.since << _COUNT | mine.count

    def _held_by_others(self, digest: bytes, since: int) -> int:
        """How many they hold; more than anybody may when one of them has somebody who has waited longer."""
        board = self._board
        if board is None:
            return 0
        if board.header[_SEATS_USED] != self._used:
            self._used = board.header[_SEATS_USED]
            self._others = [
                (board.seat(number), _HOLDS + number * _AREA)
                for number in range(1, self._used)
                if number != self._number
            ]
        cells, memory = self._ledger._cells, self._ledger._map
        bucket = _AREA_HEADER + int.from_bytes(digest[8:], "little") % _AREA_BUCKETS * _BUCKET
        total = 0
        for seat, area in self._others:
            pid = seat[_PID]
            if not pid or cells[area >> 3] != seat[_STARTED] << 22 | pid:
                continue
            at = area + bucket
            found = memory[at : at + _KEYS].find(digest)
            if found < 0 or found & 15:
                continue
            word = cells[(at + _KEYS + (found >> 1)) >> 3]
            # Meanwhile the place may have been given to another key; a word is written after its key.
            if word and memory[at + found : at + found + 16] == digest:
                if word > _MOST_HELD and word >> _COUNT < since and self._is_in_line(seat):
                    return _MOST_HELD
                total += word & _MOST_HELD
        return total

    def _is_in_line(self, seat: Cells) -> bool:
        """Whether who waits there comes in turn with those here. Other generations may have other limits, and one who
        stands still is passed over."""
        return (
            self._seat is not None
            and seat[_GENERATION] == self._seat[_GENERATION]
            and monotonic_ns() - seat[_BEAT] < _STILL
        )

    def _open(self, digest: bytes, word: int) -> int:
        """A cell that says this for a key. Every place of the bucket taken: -1, and only this process knows of it."""
        ledger = self._ledger
        cells = ledger._cells
        at = self._area + _AREA_HEADER + int.from_bytes(digest[8:], "little") % _AREA_BUCKETS * _BUCKET
        cell = ledger._find(at, digest)
        if cell < 0:
            values = _VALUES.unpack_from(ledger._map, at + _KEYS)
            if 0 not in values:
                ledger._count_eviction()
                return -1
            way = values.index(0)
            keys = (at >> 3) + 2 * way
            first, second = _HASH.unpack(digest)
            cells[keys] = 0
            cells[keys + 1] = second
            cells[keys] = first
            cell = (at + _KEYS) // 8 + way
        cells[cell] = word
        return cell


class Held:
    """What this process has of a key. cell: where that stands, -1: nowhere."""

    __slots__ = ("cell", "count", "since")

    def __init__(self, cell: int, count: int) -> None:
        self.cell = cell
        self.count = count
        self.since = 0


def waiting_since() -> int:
    """Now, as `Holds` writes it."""
    return monotonic_ns() >> _FINENESS


def _incarnation(pid: int, started: int) -> int:
    """Who sits on a seat, in one word: PIDs have 22 bits at the most, and the time in milliseconds 42 until 2109."""
    return started << 22 | pid
