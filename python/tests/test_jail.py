"""Tests of Jail: whole lives and errors."""

from __future__ import annotations

import gc
import grp
import os
import pwd
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path, PurePosixPath
from typing import Any, Callable, List, Tuple

import pytest
from conftest import GID, UID, Guard, is_running, needs_v1, owner

import stockade
from stockade import InUse, InvalidSpec, Jail, LeftBehind, NotReady, StillRunning, StockadeError


Calls = List[Tuple[Callable[[], Any], str]]


def make(guard: Guard, suffix: str = "vm", **properties: Any) -> Jail:
    properties = {"uid": UID, "gid": GID, "chroot_base": guard.base, **properties}
    exec_file = properties.pop("exec_file", guard.vmm)
    return Jail(guard.named(suffix), exec_file, **properties)


def test_a_whole_life(guard: Guard) -> None:
    image = guard.file("image", "from the host")
    with make(guard, netns=guard.named("net")) as jail:
        assert guard.netns(guard.named("net"))
        placed = jail.place(image)
        assert placed.path == PurePosixPath("/image") and str(placed) == "/image"
        vm = jail.launch("listen=/run/api.socket", f"read={placed}", "sleep")
        vm.wait_ready("/run/api.socket", timeout=20)
        assert is_running(vm.pid) and vm.poll() is None
        with pytest.raises(StillRunning, match="still runs after 0.01 s"):
            vm.wait(timeout=0.01)
        status = vm.stop()
        assert (status.code, status.signal, status.returncode) == (None, signal.SIGTERM, -signal.SIGTERM)
        assert "from the host" in vm.log()
    assert not guard.base.exists() and "from the host" in vm.log()


def test_no_error_acts_on_a_terminal(guard: Guard) -> None:
    with make(guard) as jail:
        vm = jail.launch("read=/x\x1b[31m", "bogus\x1b]0;title\x07")
        with pytest.raises(NotReady) as raised:
            vm.wait_ready("/run/api.socket", timeout=20)
        assert "title" in str(raised.value) and str(raised.value).isprintable(), raised.value
        assert "\x1b]0;title\x07" in vm.log(), "the log is exact"


def test_wait_returns_the_vmms_exit_code(guard: Guard) -> None:
    with make(guard, arguments=["exit=7"]) as jail:
        status = jail.launch().wait(timeout=20)
    assert (status.code, status.returncode, str(status)) == (7, 7, "exit code 7")


def test_the_end_of_the_block_kills_the_vmm(guard: Guard) -> None:
    with make(guard) as jail:
        vm = jail.launch("sleep")
    assert not is_running(vm.pid)


def test_an_exception_in_the_block_propagates(guard: Guard) -> None:
    with pytest.raises(ZeroDivisionError), make(guard) as jail:
        jail.launch("sleep")
        1 / 0
    assert not guard.base.exists()


def test_a_forgotten_jail_is_removed_with_a_warning(guard: Guard) -> None:
    jail = make(guard).create()
    pid = jail.launch("sleep").pid
    with pytest.warns(ResourceWarning, match="was not torn down"):
        del jail
        gc.collect()
    assert not is_running(pid) and not guard.base.exists()


def test_teardown_is_repeatable_and_a_jail_can_be_recreated(guard: Guard) -> None:
    jail = make(guard)
    jail.teardown()
    for _ in range(2):
        jail.create().launch("sleep")
        jail.teardown()
        jail.teardown()


def test_launch_takes_streams(guard: Guard) -> None:
    out = guard.directory / "out"
    with make(guard) as jail, open(out, "w") as stdout, open(os.devnull) as null:
        vm = jail.launch("args", stdin=null, stdout=stdout, stderr=stdout.fileno())
        assert vm.wait(20).code == 0
        reason = f"the VMM of jail {jail.id} has no log: launch.. got streams"
        with pytest.raises(stockade.NoLog, match=reason):
            vm.log()
        assert "has no log" in jail.describe()
    with pytest.raises(stockade.NoLog, match=reason):
        vm.log()
    assert "stockade-probe" in out.read_text()


def test_the_log_is_cut_to_its_size(guard: Guard) -> None:
    with make(guard) as jail:
        vm = jail.launch("args", "clock")
        vm.wait(20)
        whole = vm.log()
        assert len(whole) > 20 and vm.log(20) == whole[-20:] and vm.log(0) == ""
        with pytest.raises(ValueError, match="size must be"):
            vm.log(-1)
    assert vm.log() == whole and vm.log(20) == whole[-20:]


def test_stop_kills_a_vmm_that_cannot_get_sigterm(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    with make(guard, new_pid_ns=True) as jail:
        vm = jail.launch("sleep")
        # Less than the time limit of a test.
        assert vm.stop(grace=3600.0).signal == 9
    line = "is the first process of its pid namespace and does not catch SIGTERM, so the kernel drops it; killing it now"
    assert [record.getMessage() for record in caplog.records] == [f"the VMM of jail {jail.id} {line}"]


def test_an_out_of_memory_kill_is_reported(guard: Guard) -> None:
    needs_v1("memory")
    limit = "memory.limit_in_bytes=8M"
    hungry = ["dd", "if=/dev/urandom", "of=/dev/null", "bs=64M", "count=1"]
    for has_streams in (False, True):
        with make(guard, exec_file="/bin/busybox", cgroups=[limit], parent_cgroup=guard.name) as jail:
            with open(os.devnull, "w") as null:
                vm = jail.launch(*hungry, stdout=null if has_streams else None)
                status = vm.wait(60)
            assert (status.signal, status.oom_kills, status.oom_unknown) == (9, 1, None)
            assert str(status) == "killed by signal 9; out of memory: the kernel killed a process of the jail"
            assert status == stockade.ExitStatus(None, 9)


def test_a_note_is_a_warning(guard: Guard) -> None:
    left = needs_v1("pids") / guard.name / guard.named("vm")
    left.mkdir(parents=True)
    with pytest.warns(stockade.StockadeWarning, match=f"jail {left.name}: ") as warned:
        with make(guard, cgroups=["pids.max=64"], parent_cgroup=guard.name) as jail:
            assert len(jail.notes) == 1 and len(warned) == 1
            assert str(warned[0].message) == f"jail {left.name}: {jail.notes[0]}"
    left.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(stockade.StockadeWarning):
            make(guard, cgroups=["pids.max=64"], parent_cgroup=guard.name).create()
    assert not guard.base.exists() and not left.exists()


def test_place_has_every_method(guard: Guard) -> None:
    image, directory = guard.file("image"), guard.directory / "directory"
    directory.mkdir()
    (directory / "inner").write_text("inner")
    with make(guard) as jail:
        assert jail.place(image, "a/copy", how="copy").how == "copy"
        assert owner(jail.host_path("/a/copy")) == (UID, GID)
        assert jail.place(str(directory)).path == PurePosixPath("/directory")
        assert jail.host_path(jail.place("/dev/null", "null").path).is_char_device()
        read_only = jail.place(image, Path("ro"), read_only=True)
        assert owner(jail.host_path(read_only.path))[0] != UID
        vm = jail.launch("sleep")
        jail.place(image, "later")
        jail.unplace("a/copy")
        assert jail.host_path("later").exists() and not jail.host_path("a/copy").exists()
        assert is_running(vm.pid)


@pytest.mark.parametrize(
    ("argument", "value", "kind"),
    [
        ("id", "a_b", ValueError),
        ("id", 5, TypeError),
        ("exec_file", "/no/such/vmm", ValueError),
        ("exec_file", 5, TypeError),
        ("uid", -1, ValueError),
        ("uid", "no-such-user", ValueError),
        ("uid", 1.5, TypeError),
        ("gid", 2**32 - 1, ValueError),
        ("gid", "no-such-group", ValueError),
        ("chroot_base", "/proc/version", ValueError),
        ("chroot_base", None, TypeError),
        ("netns", "../x", ValueError),
        ("netns", 5, TypeError),
        ("new_pid_ns", 1, TypeError),
        ("cgroups", "pids.max=5", TypeError),
        ("cgroups", ["nonsense"], ValueError),
        ("cgroups", [5], TypeError),
        ("cgroup_version", 3, ValueError),
        ("parent_cgroup", "/x", ValueError),
        ("resource_limits", ["cores=1"], ValueError),
        ("ramfs", -1, ValueError),
        ("ramfs", "lots", ValueError),
        ("ramfs", 1.5, TypeError),
        ("profile", "no-such", ValueError),
        ("arguments", "sleep", TypeError),
        ("state_dir", 5, TypeError),
    ],
)
def test_an_invalid_argument_is_named(
    guard: Guard, argument: str, value: Any, kind: Any
) -> None:
    properties = {"id": guard.named("vm"), "exec_file": guard.vmm, "chroot_base": guard.base, argument: value}
    with pytest.raises(kind, match=rf"^{argument}[: ]") as caught:
        Jail(**properties).create()
    assert "\n" not in str(caught.value)


def test_names_and_sizes_with_units_are_accepted(guard: Guard) -> None:
    nobody, nogroup = pwd.getpwnam("nobody").pw_uid, grp.getgrnam("nogroup").gr_gid
    limits = ["fsize=1M"]
    with make(guard, uid="nobody", gid="nogroup", ramfs="64K", resource_limits=limits) as jail:
        assert "(65536 bytes)" in jail.describe()
        vm = jail.launch("sleep")
        status = Path(f"/proc/{vm.pid}/status").read_text()
        assert f"Uid:\t{nobody}\t" in status and f"Gid:\t{nogroup}\t" in status
        assert "Max file size             1048576 " in Path(f"/proc/{vm.pid}/limits").read_text()


def test_an_invalid_call_names_its_argument(guard: Guard) -> None:
    with make(guard) as jail:
        before: Calls = [
            (lambda: jail.place("/no/such/file"), "source: "),
            (lambda: jail.place(5), "source must be"),  # type: ignore[arg-type]
            (lambda: jail.place(guard.vmm, "../out"), "source: |name: "),
            (lambda: jail.place(guard.vmm, how="magic"), "how must be"),
            (lambda: jail.unplace("never/placed"), "path: "),
            (lambda: jail.launch(stdout="file"), "stdout must be"),  # type: ignore[arg-type]
            (lambda: jail.launch(log_bytes=-1), "log_bytes must be"),
        ]
        for call, beginning in before:
            with pytest.raises((TypeError, ValueError), match=f"^({beginning})"):
                call()
        vm = jail.launch("sleep")
        after: Calls = [
            (lambda: vm.wait(-1), "timeout must be"),
            (lambda: vm.wait("1"), "timeout must be"),  # type: ignore[arg-type]
            (lambda: vm.wait_ready(timeout=0.1), "socket must be"),
            (lambda: vm.signal(4000), "signal must be"),
        ]
        for call, beginning in after:
            with pytest.raises((TypeError, ValueError), match=f"^({beginning})"):
                call()
        with pytest.raises(RuntimeError, match="already launched"):
            jail.launch()


def test_errors_are_a_hierarchy_with_details(guard: Guard) -> None:
    with make(guard) as jail:
        with pytest.raises(InUse) as in_use:
            make(guard).create()
        assert in_use.value.kind == "in-use" and isinstance(in_use.value, StockadeError)
        with pytest.raises(NotReady) as not_ready:
            jail.launch("exit=3").wait_ready("run/x.socket")
        assert not_ready.value.kind == "not-ready" and "exit code 3" in str(not_ready.value)
    with pytest.raises(InvalidSpec) as invalid:
        make(guard, exec_file="/no/such/vmm").create()
    assert (invalid.value.path, invalid.value.errno) == (Path("/no/such/vmm"), 2)
    guard.file("plain")
    os.chmod(guard.directory / "plain", 0o644)
    with make(guard, exec_file=guard.directory / "plain", closure=False) as jail:
        with pytest.raises(stockade.PermissionDenied) as denied:
            jail.launch()
    assert denied.value.operation and isinstance(denied.value, PermissionError)


def test_a_bound_executable_is_not_copied(guard: Guard) -> None:
    with make(guard, bind_executable=True) as jail:
        point = jail.root / guard.vmm.name
        assert point.stat().st_size == 0
        assert jail.launch("exit=3").wait().code == 3
        assert point.stat().st_size == 0
    with pytest.raises(InvalidSpec, match="^bind_executable: "):
        make(guard, bind_executable=True, uid=0).create()


def test_leftovers_are_raised_and_removed_by_gc(guard: Guard) -> None:
    jail = make(guard).create()
    inside = jail.root / "mnt"
    inside.mkdir()
    subprocess.run(["mount", "--bind", "/usr", str(inside)], check=True)
    try:
        with pytest.raises(LeftBehind, match="mounted there"):
            jail.teardown()
    finally:
        subprocess.run(["umount", str(inside)], check=True)
    assert guard.stockade("gc").returncode == 0


def test_a_vmm_that_is_not_ready_in_time_is_an_error(guard: Guard) -> None:
    with make(guard) as jail:
        vm = jail.launch("sleep")
        with pytest.raises(NotReady, match="after 0.2 s"):
            vm.wait_ready("run/x.socket", timeout=0.2)
        assert vm.poll() is None


def test_the_pidfd_can_be_polled(guard: Guard) -> None:
    with make(guard) as jail:
        vm = jail.launch("sleep")
        poller = select.poll()
        poller.register(vm, select.POLLIN)
        assert poller.poll(0) == []
        vm.kill()
        assert poller.poll(20_000)
        assert vm.wait(20).signal == signal.SIGKILL


def test_other_threads_run_while_one_waits(guard: Guard) -> None:
    with make(guard) as jail:
        vm = jail.launch("sleep")
        ends = []
        waiting = threading.Thread(target=lambda: ends.append(vm.wait(20)))
        waiting.start()
        assert sum(range(10_000)) and waiting.is_alive()
        vm.kill()
        waiting.join(20)
        assert ends and ends[0].signal == signal.SIGKILL


INTERRUPTED = """
import os, signal, sys, threading
from stockade import Jail
name, vmm, base, how = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell that started the tests in the background ignores it.
with Jail(name, vmm, chroot_base=base) as jail:
    vm = jail.launch("sleep")
    print(vm.pid, flush=True)
    vm.wait() if how == "wait" else vm.wait_ready("run/never", timeout=60)
"""


@pytest.mark.parametrize("how", ["wait", "ready"])
def test_a_keyboard_interrupt_ends_a_wait(guard: Guard, how: str) -> None:
    arguments = [guard.named("vm"), str(guard.vmm), str(guard.base), how]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as python:
        assert python.stdout is not None
        try:
            pid = int(python.stdout.readline())
            python.send_signal(signal.SIGINT)
            _, errors = python.communicate(timeout=20)
        finally:
            python.kill()
    assert "KeyboardInterrupt" in errors and not is_running(pid)


def test_64_jails_at_once_from_4_threads(guard: Guard) -> None:
    jails = [make(guard, f"vm{number}") for number in range(64)]
    failures = []

    def launch(own: Any) -> None:
        try:
            for jail in own:
                jail.create().launch("sleep")
        except BaseException as failure:  # noqa: BLE001
            failures.append(failure)

    def in_threads(work: Any) -> None:
        threads = [threading.Thread(target=work, args=(jails[start::4],)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    in_threads(launch)
    alive = sum(jail.vm is not None and jail.vm.poll() is None for jail in jails)
    in_threads(lambda own: [jail.teardown() for jail in own])
    assert (failures, alive) == ([], 64)


def test_launching_is_safe_while_other_threads_allocate(guard: Guard) -> None:
    stop = threading.Event()

    def allocate() -> None:
        while not stop.is_set():
            [bytearray(512) for _ in range(500)]

    threads = [threading.Thread(target=allocate) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            with make(guard) as jail:
                assert jail.launch("exit=0").wait(20).code == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_leave_detaches_the_jail(guard: Guard) -> None:
    jail = make(guard).create()
    jail.launch("sleep")
    jail.leave()
    assert "running" in guard.stockade("ps").stdout
    assert guard.stockade("rm", "--force", jail.id).returncode == 0
    # The monitor is a child of this process, which must reap it.
    os.waitpid(-1, 0)


def test_describe_shows_state_steps_and_output(guard: Guard) -> None:
    with make(guard) as jail:
        assert ": created" in jail.describe() and "jail directory" in jail.describe()
        vm = jail.launch("args", "sleep")
        assert f"running as pid {vm.pid}" in jail.describe()
        vm.kill()
        vm.wait(20)
        assert "exited, killed by signal 9" in jail.describe()
    assert "exited" in jail.describe()


def test_deadlines_are_kept_across_signals(guard: Guard) -> None:
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(time.monotonic()))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        with make(guard) as jail:
            vm = jail.launch("sleep")
            with pytest.raises(StillRunning):
                vm.wait(0.1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen


def test_an_unsafe_base_is_refused_unless_allowed(guard: Guard) -> None:
    guard.base.mkdir()
    guard.base.chmod(0o777)
    with pytest.raises(InvalidSpec, match="^chroot_base: .* can write to "):
        make(guard).create()
    with make(guard, allow_unsafe_base=True) as jail:
        assert jail.root.exists()
    guard.base.rmdir()
