"""The same jails for asyncio: the event loop waits at the VMM's pidfd, with no thread for it."""

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
from .vm import ExitStatus, StrPath, Vm, deadline_of

__all__ = ["AsyncJail", "AsyncVm"]

_T = TypeVar("_T")

# How soon a socket at which nobody listens yet is tried again.
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
        """The jail itself, for what does not take long."""

    async def __aenter__(self) -> AsyncJail:
        try:
            await _to_its_end(self.jail.prepare)
        except asyncio.CancelledError:
            await _to_its_end(self.jail.teardown)
            raise
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await _to_its_end(self.jail.__exit__, kind, error, traceback)

    async def place(
        self,
        source: StrPath,
        name: Optional[StrPath] = None,
        *,
        how: str = "auto",
        read_only: bool = False,
    ) -> Placed:
        """As :meth:`stockade.Jail.place`."""
        return await _to_its_end(lambda: self.jail.place(source, name, how=how, read_only=read_only))

    async def launch(self, *arguments: StrPath, **streams: Any) -> AsyncVm:
        """As :meth:`stockade.Jail.launch`."""
        return AsyncVm(await _to_its_end(lambda: self.jail.launch(*arguments, **streams)))


class AsyncVm:
    """A :class:`stockade.Vm` whose end can be awaited."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        """The VMM itself, for what does not wait."""

    @property
    def pid(self) -> int:
        """The VMM's pid on the host."""
        return self.vm.pid

    async def wait(self, timeout: Optional[float] = None) -> ExitStatus:
        """As :meth:`stockade.Vm.wait`."""
        deadline = deadline_of(timeout)
        while (ended := self.vm.poll()) is None:
            # The VMM's pidfd, and then that of the monitor, which writes down how it ended.
            descriptor = self.vm._running.waits_at()
            left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
            if descriptor is not None and not await _readable(descriptor, left):
                raise StillRunning(f"the VMM of jail {self.vm._id} still runs after {timeout} s")
        return ended

    async def wait_ready(self, socket: Optional[StrPath] = None, timeout: float = 10.0) -> None:
        """As :meth:`stockade.Vm.wait_ready`."""
        deadline = deadline_of(timeout)
        named = None if socket is None else path_of("socket", socket)
        while not self.vm._is_ready(named, 0.0, deadline, timeout):
            # The VMM's end is noticed at once.
            pidfd = os.dup(self.vm.fileno())
            await _readable(pidfd, min(_TRY_AGAIN_AFTER, max(0.0, deadline - time.monotonic())))

    def signal(self, signal: int) -> None:
        """As :meth:`stockade.Vm.signal`."""
        self.vm.signal(signal)

    def kill(self) -> None:
        """Kills the VMM."""
        self.vm.kill()

    async def stop(self, grace: float = 5.0) -> ExitStatus:
        """As :meth:`stockade.Vm.stop`."""
        self.vm.signal(15)
        try:
            return await self.wait(grace)
        except StillRunning:
            self.vm.kill()
            return await self.wait()

    def log(self) -> str:
        """What the VMM wrote, unless it was given streams."""
        return self.vm.log()


async def _readable(descriptor: int, timeout: Optional[float]) -> bool:
    """Waits until a descriptor, which is closed then, is readable; False if that takes too long.

    It has to be one of this call's own: the loop has one reader for each, and several tasks may wait.
    """
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not readable.done():
            readable.set_result(None)

    try:
        loop.add_reader(descriptor, tell)
        done, _ = await asyncio.wait([readable], timeout=timeout)
        return bool(done)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _to_its_end(call: Callable[..., _T], *arguments: Any) -> _T:
    """Runs what takes a moment in the loop's pool of threads. Cancelled, it is still waited for: a jail that
    is half made belongs to nobody."""
    future = asyncio.get_running_loop().run_in_executor(None, call, *arguments)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
