"""The VMM of a jail, and how it ended."""

from __future__ import annotations

import math
import os
import select
import signal as signals
import time
from dataclasses import dataclass
from typing import Any, Optional, Union

from . import _stockade
from ._checks import path_of
from .errors import NotReady, StillRunning

__all__ = ["Ended", "ExitStatus", "Vm"]

StrPath = Union[str, "os.PathLike[str]"]

# A call into the library is cut into pieces of so many seconds, between which Python sees to its signals.
_PIECE = 0.1


@dataclass(frozen=True)
class ExitStatus:
    """How a VMM ended: by an exit code or by a signal; neither if nobody knows."""

    code: Optional[int]
    signal: Optional[int]

    @property
    def returncode(self) -> Optional[int]:
        """As :mod:`subprocess` has it: a signal's number is negative."""
        return -self.signal if self.signal is not None else self.code

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by signal {self.signal}"
        return "how is not known" if self.code is None else f"exit code {self.code}"


# The name of this class before 0.2.
Ended = ExitStatus


class Vm:
    """The VMM of a jail. :meth:`Jail.launch` makes it."""

    def __init__(self, id: str, running: _stockade.Running) -> None:
        self._id = id
        self._running = running
        self._pidfd = running.pidfd()
        self._ended: Optional[ExitStatus] = None
        self._log = ""
        self._is_gone = False

    def __del__(self) -> None:
        pidfd, self._pidfd = getattr(self, "_pidfd", -1), -1
        if pidfd >= 0:
            os.close(pidfd)

    @property
    def pid(self) -> int:
        """The VMM's pid on the host."""
        return self._running.pid

    def fileno(self) -> int:
        """The VMM's pidfd, which is readable once the VMM has ended: for :mod:`select` and its like."""
        return self._pidfd

    def poll(self) -> Optional[ExitStatus]:
        """How the VMM ended; None while it runs."""
        if self._ended is None and not self._is_gone:
            self._note(self._running.ended(0))
        return self._ended

    def wait(self, timeout: Optional[float] = None) -> ExitStatus:
        """Waits for the VMM's end.

        :raises StillRunning: if it does not come within so many seconds
        """
        deadline = deadline_of(timeout)
        while self.poll() is None:
            if not self._wait_for_news(deadline):
                raise StillRunning(f"the VMM of jail {self._id} still runs after {timeout} s")
        assert self._ended is not None
        return self._ended

    def wait_ready(self, socket: Optional[StrPath] = None, timeout: float = 10.0) -> None:
        """Waits until the VMM accepts connections at a Unix socket in its jail.

        :param socket: the socket's path in the jail; what the profile knows unless given
        :raises NotReady: if it ends first, with the end of its log, or does not get ready in time
        """
        named = None if socket is None else path_of("socket", socket)
        deadline = deadline_of(timeout)
        while not self._is_ready(named, min(_PIECE, max(0.0, deadline - time.monotonic())), deadline, timeout):
            pass

    def _is_ready(self, socket: Optional[StrPath], piece: float, deadline: float, timeout: float) -> bool:
        """Whether it is ready within a piece of the time; raises if it ended or the deadline is over."""
        had_ended = self.poll() is not None
        try:
            self._running.wait_ready(socket, piece)
        except NotReady as error:
            if had_ended:
                # It tells how.
                raise
            if self.poll() is None and time.monotonic() >= deadline:
                told = str(error).rpartition(" after ")[0]
                raise NotReady(f"{told} after {timeout} s") from None
            return False
        return True

    def signal(self, signal: int) -> None:
        """Sends the VMM a signal; one that has ended needs none."""
        self._running.signal(int(signal))

    def kill(self) -> None:
        """Kills the VMM."""
        self.signal(signals.SIGKILL)

    def stop(self, grace: float = 5.0) -> ExitStatus:
        """Asks the VMM to end, and kills it if it has not within so many seconds."""
        self.signal(signals.SIGTERM)
        try:
            return self.wait(grace)
        except StillRunning:
            self.kill()
            return self.wait()

    def log(self) -> str:
        """What the VMM wrote, unless it was given streams."""
        if not self._is_gone:
            self._log = self._running.log().decode(errors="replace")
        return self._log

    def _wait_for_news(self, deadline: float) -> bool:
        """Waits at the VMM's pidfd, then at its monitor's; False if the deadline comes first."""
        descriptor = self._running.waits_at()
        if descriptor is None:
            return True
        try:
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            left = deadline - time.monotonic()
            return bool(poller.poll(None if left == math.inf else max(0, math.ceil(left * 1000))))
        finally:
            os.close(descriptor)

    def _note(self, ended: Any) -> None:
        if ended is not None:
            self._ended = ExitStatus(*ended)

    def _teardown(self) -> Any:
        if self._is_gone:
            return []
        self.log()
        self._is_gone = True
        return self._running.teardown()

    def _leave(self) -> None:
        self.log()
        self._is_gone = True
        self._running.leave()


def deadline_of(timeout: Any) -> float:
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if not timeout >= 0:
        raise ValueError(f"timeout must be a number of seconds, not {timeout}")
    return time.monotonic() + timeout
