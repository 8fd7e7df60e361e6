"""The same jails for asyncio: the event loop waits at the VMM's pidfd, with no thread for it."""

from __future__ import annotations

import asyncio
import os
import time
from types import TracebackType
from typing import Any, Callable, Optional, Type, TypeVar

from ._checks import path_of
from .errors import StillRunning
from .jail import Ended, Jail, Placed, StrPath, Vm, _deadline

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

    async def wait(self, timeout: Optional[float] = None) -> Ended:
        """As :meth:`stockade.Vm.wait`."""
        _deadline(timeout)
        if self.vm.poll() is None and not await self._ends_within(timeout):
            raise StillRunning(f"the VMM of jail {self.vm._id} still runs after {timeout} s")
        while (ended := self.vm.poll()) is None:
            # The VMM has ended, and its monitor is just writing down how.
            await asyncio.sleep(0.001)
        return ended

    async def wait_ready(self, socket: Optional[StrPath] = None, timeout: float = 10.0) -> None:
        """As :meth:`stockade.Vm.wait_ready`."""
        deadline = _deadline(timeout)
        named = None if socket is None else path_of("socket", socket)
        while not self.vm._is_ready(named, 0.0, deadline, timeout):
            await self._ends_within(min(_TRY_AGAIN_AFTER, max(0.0, deadline - time.monotonic())))

    def signal(self, signal: int) -> None:
        """As :meth:`stockade.Vm.signal`."""
        self.vm.signal(signal)

    def kill(self) -> None:
        """Kills the VMM."""
        self.vm.kill()

    async def stop(self, grace: float = 5.0) -> Ended:
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

    async def _ends_within(self, timeout: Optional[float]) -> bool:
        """Waits at the VMM's pidfd; whether it became readable."""
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not readable.done():
                readable.set_result(None)

        # A copy, since the loop has one reader for a descriptor, and several tasks may wait.
        pidfd = os.dup(self.vm.fileno())
        loop.add_reader(pidfd, tell)
        try:
            done, _ = await asyncio.wait([readable], timeout=timeout)
            return bool(done)
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)


async def _to_its_end(call: Callable[..., _T], *arguments: Any) -> _T:
    """Runs what takes a moment in the loop's pool of threads. Cancelled, it is still waited for: a jail that
    is half made belongs to nobody."""
    future = asyncio.get_running_loop().run_in_executor(None, call, *arguments)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
