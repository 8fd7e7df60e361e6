"""Jails for asyncio. The event loop waits at the VMM's pidfd, without a thread."""

from __future__ import annotations

import asyncio
import math
import os
import time
from types import TracebackType
from typing import Any, Callable, Optional, Type, TypeVar

from ._checks import path_of
from .errors import StillRunning
from .jail import Jail, Placed
from .vm import KILL_TIMEOUT, LOG_SIZE, ExitStatus, StrPath, Vm, deadline_of

__all__ = ["AsyncJail", "AsyncVm"]

_T = TypeVar("_T")

# The pause between two attempts to connect to a socket, in seconds.
_TRY_AGAIN_AFTER = 0.005


class AsyncJail:
    """A :class:`stockade.Jail` as an asynchronous context manager, with the same parameters::

        async with AsyncJail("vm-1", "/usr/local/bin/firecracker") as jail:
            vm = await jail.launch("--config-file", "/vm.json")
            await vm.wait_ready()
            await vm.wait(timeout=60)
    """

    def __init__(self, id: str, exec_file: StrPath, **properties: Any) -> None:
        self.jail = Jail(id, exec_file, **properties)
        """The jail itself, for calls that do not block."""

    async def __aenter__(self) -> AsyncJail:
        try:
            await _complete(self.jail.create)
        except asyncio.CancelledError:
            await _complete(self.jail.teardown)
            raise
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await _complete(self.jail.__exit__, kind, error, traceback)

    async def place(
        self,
        source: StrPath,
        name: Optional[StrPath] = None,
        *,
        how: str = "auto",
        read_only: bool = False,
    ) -> Placed:
        """See :meth:`stockade.Jail.place`."""
        return await _complete(lambda: self.jail.place(source, name, how=how, read_only=read_only))

    async def launch(self, *arguments: StrPath, **streams: Any) -> AsyncVm:
        """See :meth:`stockade.Jail.launch`."""
        return AsyncVm(await _complete(lambda: self.jail.launch(*arguments, **streams)))


class AsyncVm:
    """A :class:`stockade.Vm` whose exit can be awaited."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        """The VMM itself, for calls that do not block."""

    @property
    def pid(self) -> int:
        """The VMM's pid on the host."""
        return self.vm.pid

    async def wait(self, timeout: Optional[float] = None) -> ExitStatus:
        """See :meth:`stockade.Vm.wait`."""
        deadline = deadline_of(timeout)
        while (status := self.vm.poll()) is None:
            # First the VMM's pidfd, then that of the monitor, which records the exit status.
            descriptor = self.vm._running.waits_at()
            left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
            if descriptor is not None and not await _readable(descriptor, left):
                raise StillRunning(f"the VMM of jail {self.vm._id} still runs after {timeout} s")
        return status

    async def wait_ready(self, socket: Optional[StrPath] = None, timeout: float = 10.0) -> None:
        """See :meth:`stockade.Vm.wait_ready`."""
        deadline = deadline_of(timeout)
        named = None if socket is None else path_of("socket", socket)
        while not self.vm._is_ready(named, 0.0, deadline, timeout):
            # The wait ends at once if the VMM exits.
            pidfd = os.dup(self.vm.fileno())
            await _readable(pidfd, min(_TRY_AGAIN_AFTER, max(0.0, deadline - time.monotonic())))

    def signal(self, signal: int) -> None:
        """See :meth:`stockade.Vm.signal`."""
        self.vm.signal(signal)

    def kill(self) -> None:
        """See :meth:`stockade.Vm.kill`."""
        self.vm.kill()

    async def stop(self, grace: float = 5.0) -> ExitStatus:
        """See :meth:`stockade.Vm.stop`."""
        grace = self.vm._ask_to_exit(grace)
        try:
            return await self.wait(grace)
        except StillRunning:
            self.vm.kill()
        try:
            return await self.wait(KILL_TIMEOUT)
        except StillRunning:
            raise self.vm._not_ended() from None

    def log(self, size: int = LOG_SIZE) -> str:
        """See :meth:`stockade.Vm.log`."""
        return self.vm.log(size)


async def _readable(descriptor: int, timeout: Optional[float]) -> bool:
    """Waits until a file descriptor is readable, and closes it.

    No other call may use it: the loop has one reader for each, and several tasks may wait.

    :param timeout: in seconds; None for no limit
    :returns: False after the timeout
    """
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def set_readable() -> None:
        if not readable.done():
            readable.set_result(None)

    try:
        loop.add_reader(descriptor, set_readable)
        done, _ = await asyncio.wait([readable], timeout=timeout)
        return bool(done)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _complete(call: Callable[..., _T], *arguments: Any) -> _T:
    """Runs a blocking call in the loop's pool of threads.

    A cancelled task still waits for the call: otherwise no task would own a jail in creation.
    """
    future = asyncio.get_running_loop().run_in_executor(None, call, *arguments)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
