"""The file that says which process is the master.

Knows one file and one lock. Never sends a signal, and never asks whether a PID is alive: numbers are used again (in a
container the master has the same one at each start), so that question can't tell a leftover from a gateway that runs.
A lock can. It is a POSIX record lock and not flock: flock belongs to the open file, so workers that outlive a killed
master would hold it on, while a record lock is not inherited by fork and dies with the master. The price: closing any
descriptor of the file drops it, so this process never opens its own file a second time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from gateway.errors import StartError


class PidFileError(StartError):
    """The file can't be written, or another gateway has it."""


class PidFile:
    """`create` at the start, `remove` at the end. For an upgrade neither: exec ends the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def create(self) -> None:
        """Write our PID. The file appears whole or not at all; one that a dead gateway left is replaced.

        Raises PidFileError, also when the file holds anything but a PID: it is somebody's, named here by mistake.
        """
        mine = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            if not self.path.parent.exists():
                self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._fd = os.open(mine, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                os.write(self._fd, b"%d\n" % os.getpid())
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                while not self._put(mine):
                    pass
            except BaseException:
                self._close()
                raise
            finally:
                mine.unlink(missing_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise PidFileError(f"cannot write the PID file {self.path}: {reason}") from error

    def remove(self) -> None:
        """Remove the file if it is still the one we made."""
        with contextlib.suppress(OSError):
            if self._fd >= 0 and os.path.samestat(os.fstat(self._fd), self.path.lstat()):
                self.path.unlink()
        self._close()

    def _put(self, mine: Path) -> bool:
        """Give our file its name. False when another start came between: look again."""
        try:
            os.link(mine, self.path)  # fails when there is a file, so of two starts at once only one gets through
            return True
        except FileExistsError:
            pass
        try:
            old = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            content = os.read(old, 32).strip()
            if content and not content.isdigit():
                raise PidFileError(f"{self.path} is not a PID file and is left alone")
            try:
                fcntl.lockf(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise PidFileError(f"another gateway is running with PID {content.decode()} ({self.path})") from error
            # We have the lock, but of a file that may have been replaced since it was opened.
            if not os.path.samestat(os.fstat(old), self.path.lstat()):
                return False
            mine.rename(self.path)
            return True
        except FileNotFoundError:
            return False
        finally:
            os.close(old)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
