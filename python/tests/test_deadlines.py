"""No call takes longer than the patience in its docstring and one second, whatever a VMM does to hold it up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest
from conftest import GID, UID, Guard, needs_v1

from stockade import Jail, LeftBehind, StillRunning, Vm
from stockade.aio import AsyncVm

BUSYBOX = "/bin/busybox"
# The time that killed processes have, as the docstrings state it.
KILL = 5.0
# What a call may need beyond its waits.
WORK = 1.0


@contextlib.contextmanager
def within(patience: float) -> Iterator[None]:
    """A block that has to end in this time, in seconds, and one second."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took <= patience + WORK, f"took {took:.1f} s, stated are {patience} s"


def eventually(what: str, is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)


def make(guard: Guard) -> Jail:
    assert os.path.exists(BUSYBOX), "install the package busybox-static"
    return Jail(guard.named("vm"), BUSYBOX, uid=UID, gid=GID, chroot_base=guard.base).create()


def shell(jail: Jail, script: str) -> Vm:
    return jail.launch("sh", "-c", script)


@contextlib.contextmanager
def frozen(guard: Guard, pid: int) -> Iterator[Path]:
    """Freezes a process in a cgroup that does not belong to its jail."""
    cgroup = needs_v1("freezer") / guard.name
    cgroup.mkdir()
    (cgroup / "cgroup.procs").write_text(str(pid))
    state = cgroup / "freezer.state"
    state.write_text("FROZEN")
    eventually("the process is frozen", lambda: state.read_text() == "FROZEN\n")
    try:
        yield state
    finally:
        state.write_text("THAWED")
        eventually("the cgroup is empty", lambda: not (cgroup / "cgroup.procs").read_text())


def test_output_of_descendants_holds_nothing_up(guard: Guard) -> None:
    jail = make(guard)
    vm = shell(jail, "/busybox yes & /busybox yes & exec /busybox sleep 1000")
    with within(1 + KILL):
        assert vm.stop(grace=1).signal == signal.SIGTERM
    with within(KILL):
        jail.teardown()
    assert not guard.base.exists()


def test_a_vmm_that_ignores_sigterm_is_killed(guard: Guard) -> None:
    jail = make(guard)
    vm = shell(jail, "trap '' TERM; echo deaf; while :; do /busybox sleep 1; done")
    eventually("it is deaf", lambda: "deaf" in vm.log())
    with within(1 + KILL):
        assert vm.stop(grace=1).signal == signal.SIGKILL
    jail.teardown()


def test_a_frozen_jail_is_thawed(guard: Guard) -> None:
    jail = make(guard)
    vm = shell(jail, "exec /busybox sleep 1000")
    listed = json.loads(guard.stockade("inspect", "--json", guard.named("vm")).stdout)
    files = [Path(cgroup) / "cgroup.freeze" for cgroup in listed["paths"]["cgroups"]]
    files = [file for file in files if file.exists()]
    if not files:
        jail.teardown()
        pytest.skip("needs cgroup v2")
    files[0].write_text("1")
    with within(1 + KILL):
        assert vm.stop(grace=1).signal == signal.SIGTERM
    jail.teardown()


def test_a_vmm_in_a_foreign_freezer_is_named(guard: Guard) -> None:
    needs_v1("freezer")
    jail = make(guard)
    vm = shell(jail, "exec /busybox sleep 1000")
    with frozen(guard, vm.pid) as state:
        with within(0):
            vm.kill()
        reason = f"process {vm.pid} of jail '{guard.named('vm')}' does not exit: '{state}' freezes it"
        with within(0.2 + KILL), pytest.raises(StillRunning, match=reason):
            vm.stop(grace=0.2)
        with within(KILL), pytest.raises(LeftBehind, match="freezes it"):
            jail.teardown()
    # The jail's monitor is a child of this process, which has given up the jail.
    os.waitpid(-1, 0)
    assert guard.stockade("gc").returncode == 0
    assert not guard.base.exists()


def test_an_asynchronous_stop_ends_too(guard: Guard) -> None:
    needs_v1("freezer")
    jail = make(guard)
    vm = shell(jail, "exec /busybox sleep 1000")
    with frozen(guard, vm.pid):
        with within(0.2 + KILL), pytest.raises(StillRunning, match="freezes it"):
            asyncio.run(AsyncVm(vm).stop(grace=0.2))
    jail.teardown()


def test_a_traced_vmm_is_named(guard: Guard) -> None:
    jail = make(guard)
    vm = shell(jail, "exec /busybox sleep 1000")
    with subprocess.Popen(["strace", "-q", "-p", str(vm.pid), "-o", "/dev/null"]) as strace:
        status = Path(f"/proc/{vm.pid}/status")
        eventually("it is traced", lambda: "TracerPid:\t0\n" not in status.read_text())
        # A tracer that never looks again.
        strace.send_signal(signal.SIGSTOP)
        try:
            with within(0.2 + KILL), pytest.raises(StillRunning, match=f"traced by process {strace.pid}"):
                vm.stop(grace=0.2)
        finally:
            strace.kill()
    jail.teardown()


def test_the_cleanup_of_a_context_ends(guard: Guard) -> None:
    needs_v1("freezer")
    context = guard.context()
    context.setup()
    pid = guard.start(context, "sleep")
    eventually("the VMM runs", lambda: "stockade-probe" in Path(f"/proc/{pid}/comm").read_text())
    with frozen(guard, pid):
        with within(KILL), pytest.warns(ResourceWarning, match="freezes it"):
            context.cleanup()
    for process in guard.processes:
        process.wait(timeout=20)
    assert guard.stockade("gc").returncode == 0
    assert not guard.base.exists()
