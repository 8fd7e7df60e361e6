"""Tests of AsyncJail."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Coroutine

import pytest
from conftest import GID, UID, Guard, is_running

from stockade import AsyncJail, NotReady, StillRunning


def make(guard: Guard, suffix: str = "vm", **properties: Any) -> AsyncJail:
    return AsyncJail(guard.named(suffix), guard.vmm, uid=UID, gid=GID, chroot_base=guard.base, **properties)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def test_a_whole_life(guard: Guard) -> None:
    image = guard.file("image", "from the host")

    async def live() -> None:
        async with make(guard) as jail:
            placed = await jail.place(image)
            vm = await jail.launch("listen=/run/api.socket", f"read={placed}", "sleep")
            await vm.wait_ready("run/api.socket")
            with pytest.raises(StillRunning):
                await vm.wait(timeout=0.01)
            assert (await vm.stop()).signal == 15
            assert "from the host" in vm.log()

    run(live())


def test_waits_need_no_threads(guard: Guard) -> None:
    async def one(number: int) -> Any:
        async with make(guard, f"vm{number}") as jail:
            vm = await jail.launch("sleep")
            waiting = asyncio.ensure_future(vm.wait())
            again = asyncio.ensure_future(vm.wait())
            await asyncio.sleep(0)
            vm.kill()
            assert await waiting == await again
            return (await waiting).signal

    async def wait_for_all() -> None:
        jails = [make(guard, f"w{number}") for number in range(16)]
        for jail in jails:
            await jail.__aenter__()
        vms = [await jail.launch("sleep") for jail in jails]
        before = threading.active_count()
        waiting = [asyncio.ensure_future(vm.wait()) for vm in vms]
        await asyncio.sleep(0.01)
        assert threading.active_count() == before, "a wait needs no thread"
        for vm in vms:
            vm.kill()
        assert {status.signal for status in await asyncio.gather(*waiting)} == {9}
        for jail in jails:
            await jail.__aexit__(None, None, None)

    async def all_of_them() -> None:
        assert await asyncio.gather(*(one(number) for number in range(16))) == [9] * 16

    run(all_of_them())
    run(wait_for_all())


def test_a_vmm_that_exits_before_it_is_ready_is_an_error(guard: Guard) -> None:
    async def live() -> None:
        async with make(guard) as jail:
            vm = await jail.launch("exit=3")
            with pytest.raises(NotReady, match="exit code 3"):
                await vm.wait_ready("run/x.socket")
        async with make(guard) as jail:
            vm = await jail.launch("sleep")
            with pytest.raises(NotReady, match="after 0.1 s"):
                await vm.wait_ready("run/x.socket", timeout=0.1)

    run(live())


def test_a_cancelled_task_leaves_nothing(guard: Guard) -> None:
    async def hang() -> None:
        async with make(guard) as jail:
            vm = await jail.launch("sleep")
            pids.append(vm.pid)
            await vm.wait()

    async def cancel() -> None:
        for moment in (0, 0, 0.001, 0.002, 0.005, 0.05):
            task = asyncio.ensure_future(hang())
            await asyncio.sleep(moment)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not guard.base.exists()

    pids: Any = []
    run(cancel())
    assert not [pid for pid in pids if is_running(pid)]
