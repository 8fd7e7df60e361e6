"""The VMM of a jail, and its exit status."""

from __future__ import annotations

import logging
import math
import os
import select
import time
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from . import _stockade
from ._checks import path_of, size_of
from .errors import NoLog, NotReady, StillRunning

__all__ = ["Ended", "ExitStatus", "Vm"]

StrPath = Union[str, "os.PathLike[str]"]

# Calls into the library take at most this time in seconds, so that Python can handle signals between them.
_PIECE = 0.1

# The time that killed processes have to exit, in seconds.
KILL_TIMEOUT = 5.0


# The default of the bytes that Vm.log returns.
LOG_SIZE = 1 << 20

_LOGGER = logging.getLogger("stockade")


@dataclass(frozen=True)
class ExitStatus:
    """The exit status of a VMM: an exit code or a signal. Both are None if the status is unknown.

    :ivar oom_kills: the number of processes of the jail that the kernel killed because memory ran out, up to the VMM's
        exit. The VMM need not be one of them. None if it is unknown (then ``oom_unknown`` is the reason), or if no
        cgroup of the jail has a memory controller.
    :ivar oom_unknown: the reason why that number is unknown
    """

    code: Optional[int]
    signal: Optional[int]
    oom_kills: Optional[int] = field(default=None, compare=False)
    oom_unknown: Optional[str] = field(default=None, compare=False, repr=False)

    @property
    def returncode(self) -> Optional[int]:
        """The return code in the form of :mod:`subprocess`: a signal has a negative number."""
        return -self.signal if self.signal is not None else self.code

    def __str__(self) -> str:
        text = "unknown exit status" if self.code is None else f"exit code {self.code}"
        if self.signal is not None:
            text = f"killed by signal {self.signal}"
        if not self.oom_kills:
            return text
        count = "a process" if self.oom_kills == 1 else f"{self.oom_kills} processes"
        return f"{text}; out of memory: the kernel killed {count} of the jail"


# The name of this class before 0.2.
Ended = ExitStatus


class Vm:
    """The VMM of a jail, as returned by :meth:`Jail.launch`."""

    def __init__(self, id: str, running: _stockade.Running) -> None:
        self._id = id
        self._running = running
        self._pidfd = running.pidfd()
        self._status: Optional[ExitStatus] = None
        self._log: Optional[bytes] = None
        self._no_log = f"the VMM of jail {id} has no log"
        self._is_released = False

    def __del__(self) -> None:
        pidfd, self._pidfd = getattr(self, "_pidfd", -1), -1
        if pidfd >= 0:
            os.close(pidfd)

    @property
    def pid(self) -> int:
        """The VMM's pid on the host."""
        return self._running.pid

    def fileno(self) -> int:
        """The VMM's pidfd, which is readable after the VMM's exit, for :mod:`select` and similar modules."""
        return self._pidfd

    def poll(self) -> Optional[ExitStatus]:
        """The VMM's exit status; None while it runs."""
        if self._status is None and not self._is_released:
            self._set_status(self._running.wait_timeout(0))
        return self._status

    def wait(self, timeout: Optional[float] = None) -> ExitStatus:
        """Waits for the VMM's exit.

        :param timeout: in seconds; None for no limit
        :raises StillRunning: if the VMM still runs after the timeout
        """
        deadline = deadline_of(timeout)
        while self.poll() is None:
            if not self._wait_until(deadline):
                raise StillRunning(f"the VMM of jail {self._id} still runs after {timeout} s")
        assert self._status is not None
        return self._status

    def wait_ready(self, socket: Optional[StrPath] = None, timeout: float = 10.0) -> None:
        """Waits until the VMM accepts connections at a Unix socket in its jail.

        :param socket: the socket's path in the jail; by default the profile's
        :param timeout: in seconds
        :raises NotReady: if the VMM exits first (the text contains the end of its log), or is not ready in time
        """
        named = None if socket is None else path_of("socket", socket)
        deadline = deadline_of(timeout)
        while not self._is_ready(named, min(_PIECE, max(0.0, deadline - time.monotonic())), deadline, timeout):
            pass

    def _is_ready(self, socket: Optional[StrPath], piece: float, deadline: float, timeout: float) -> bool:
        """Whether the VMM gets ready within ``piece`` seconds.

        :raises NotReady: if the VMM has exited, or the deadline has passed
        """
        had_exited = self.poll() is not None
        try:
            self._running.wait_ready(socket, piece)
        except NotReady as error:
            if had_exited:
                # The error contains the exit status.
                raise
            if self.poll() is None and time.monotonic() >= deadline:
                text = str(error).rpartition(" after ")[0]
                raise NotReady(f"{text} after {timeout} s") from None
            return False
        return True

    def signal(self, signal: int) -> None:
        """Sends a signal to the VMM. Does nothing after its exit."""
        self._running.signal(int(signal))

    def kill(self) -> None:
        """Kills the VMM and the other processes in the jail's cgroups, frozen ones too. Waits for none of them.

        Does nothing after the VMM's exit.
        """
        if self.poll() is None:
            self._running.kill()

    def stop(self, grace: float = 5.0) -> ExitStatus:
        """Sends SIGTERM to the VMM, and kills it after a grace period. A frozen jail is thawed first.

        Returns after at most the grace period and five seconds.

        A VMM that is the first process of its pid namespace (``new_pid_ns``) and does not catch SIGTERM is killed at
        once, because the kernel drops the signal. The logger ``stockade`` gets a warning of it, and of a VMM that ignores
        the signal.

        :param grace: the grace period in seconds
        :raises StillRunning: if the VMM has not exited five seconds after it was killed; the text has the reason
        """
        grace = self._ask_to_exit(grace)
        try:
            return self.wait(grace)
        except StillRunning:
            self.kill()
        try:
            return self.wait(KILL_TIMEOUT)
        except StillRunning:
            raise self._not_ended() from None

    def log(self, size: int = LOG_SIZE) -> str:
        """The end of the VMM's output. After the jail's removal, at most 1 MiB of it.

        :param size: the maximum size in bytes
        :raises NoLog: if there is no log, for example because :meth:`Jail.launch` got streams
        """
        size = size_of("size", size)
        if self._is_released:
            if self._log is None:
                raise NoLog(self._no_log)
            return (self._log[-size:] if size else b"").decode(errors="replace")
        self._read_log(size)
        if self._log is None:
            raise NoLog(self._no_log)
        return self._log.decode(errors="replace")

    def _read_log(self, size: int) -> None:
        self._log, reason = self._running.log(size)
        self._no_log = f"the VMM of jail {self._id} has no log: {reason}"

    def _log_or_reason(self) -> str:
        try:
            return self.log()
        except NoLog as error:
            return str(error)

    def _ask_to_exit(self, grace: float) -> float:
        """Sends SIGTERM, and returns the grace period: none if the kernel drops the signal."""
        if self.poll() is not None:
            return grace
        unheeded = self._running.ask_to_exit()
        if unheeded is None:
            return grace
        is_dropped, reason = unheeded
        consequence = "killing it now" if is_dropped else "it is killed after the grace period"
        _LOGGER.warning("the VMM of jail %s %s; %s", self._id, reason, consequence)
        return 0.0 if is_dropped else grace

    def _not_ended(self) -> StillRunning:
        """The error of a VMM that was killed and has not exited."""
        return StillRunning(self._running.not_ended())

    def _wait_until(self, deadline: float) -> bool:
        """Waits at the VMM's pidfd, or at its monitor's after the VMM's exit; False after the deadline."""
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

    def _set_status(self, status: Any) -> None:
        if status is not None:
            (code, signal), (kills, unknown) = status, self._running.oom_kills()
            self._status = ExitStatus(code, signal, kills, unknown)

    def _teardown(self) -> Any:
        if self._is_released:
            return []
        self._read_log(LOG_SIZE)
        self._is_released = True
        return self._running.teardown()

    def _detach(self) -> None:
        self._read_log(LOG_SIZE)
        self._is_released = True
        self._running.detach()


def deadline_of(timeout: Any) -> float:
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if not timeout >= 0:
        raise ValueError(f"timeout must be a number of seconds, not {timeout}")
    return time.monotonic() + timeout
