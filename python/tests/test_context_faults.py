"""The nine faults of Firecracker's class, which JailerContext does not have. The ninth is in test_context_values.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import List

import pytest
from conftest import GID, UID, Guard, cgroup_mounts, is_running, needs_v1, owner, ramfs_mounts
from test_context_jails import interpreter

from stockade import StockadeError


def test_fault_1_a_running_vmm_does_not_survive_cleanup(guard: Guard) -> None:
    context = guard.context()
    context.setup()
    pid = guard.start(context)
    assert is_running(pid)
    context.cleanup()
    assert not is_running(pid)


def test_fault_1_its_processes_do_not_survive_cleanup(guard: Guard) -> None:
    context = guard.context()
    context.setup()
    before = set(os.listdir("/proc"))
    guard.start(context, "spawn=3", "daemon=2", "write=/up=1", "sleep")
    wait_for_path(Path(context.chroot_path(), "up"))
    context.cleanup()
    rest = [int(p) for p in set(os.listdir("/proc")) - before if p.isdigit()]
    assert not [p for p in rest if is_running(p) and comm(p) == "stockade-probe"]


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def wait_for_path(path: Path) -> None:
    import time

    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.002)


@pytest.mark.parametrize("parent", [None, "NAME", "NAME/deep/er"])
def test_fault_2_cgroups_v1_are_removed_below_any_parent(guard: Guard, parent: "str | None") -> None:
    pids, cpu = needs_v1("pids"), needs_v1("cpu")
    exec_file = guard.directory / f"{guard.name}-vmm"
    exec_file.write_bytes(guard.vmm.read_bytes())
    exec_file.chmod(0o755)
    parent = parent and parent.replace("NAME", guard.name)
    settings = ["pids.max=50", "cpu.shares=100"]
    context = guard.context(cgroups=settings, parent_cgroup=parent, exec_file=str(exec_file))
    context.setup()
    pid = guard.start(context)
    below = Path(parent or exec_file.name, guard.named("vm"))
    assert (pids / below).is_dir() and (cpu / below).is_dir()
    context.cleanup()
    assert not is_running(pid)
    for mount in (pids, cpu):
        assert not (mount / below).exists() and (mount / below).parent.is_dir()
        if parent is None:
            (mount / exec_file.name).rmdir()


def test_fault_2_cgroups_v2_are_removed(guard: Guard) -> None:
    unified = cgroup_mounts().get("unified")
    if unified is None:
        pytest.skip("needs cgroup v2")
    # Created here instead of by the jailer, whose cgroups v2 are tested on hosts with cgroup v2 only.
    own = unified / guard.name / guard.named("vm")
    own.mkdir(parents=True)
    context = guard.context(cgroups=["pids.max=50"], cgroup_ver=2, parent_cgroup=guard.name)
    context.setup()
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        (own / "cgroup.procs").write_text(str(sleeper.pid))
        context.cleanup()
        assert sleeper.wait(timeout=20) == -9
    assert not own.exists()


def test_fault_3_a_longer_name_is_another_namespace(guard: Guard) -> None:
    longer, context = guard.context("vm-10"), guard.context("vm-1")
    longer.setup()
    context.setup()
    assert guard.netns(guard.named("vm-1"))
    context.cleanup()
    assert guard.netns(guard.named("vm-10")) and not guard.netns(guard.named("vm-1"))
    longer.cleanup()


def test_fault_4_a_symlink_in_the_jail_is_replaced(guard: Guard) -> None:
    context, image = guard.context(), guard.file("image", "new\n")
    victim = guard.file("victim", "untouched\n")
    context.setup()
    guard.start(context)
    Path(context.chroot_path(), "image").symlink_to(victim)
    context.jailed_path(image, create=True)
    placed = Path(context.chroot_path(), "image")
    assert not placed.is_symlink() and placed.read_text() == "new\n"
    assert victim.read_text() == "untouched\n" and owner(victim) == (0, 0)
    context.cleanup()


def test_fault_4_a_symlink_on_the_way_is_not_followed(guard: Guard) -> None:
    context, image = guard.context(), guard.file("image")
    outside = guard.directory / "outside"
    outside.mkdir()
    context.setup()
    guard.start(context)
    # The first directory on the way is a symbolic link out of the jail.
    Path(context.chroot_path(), image.parts[1]).symlink_to(outside)
    with pytest.raises(StockadeError):
        context.copy_into_root(str(image))
    assert list(outside.iterdir()) == [] and owner(outside) == (0, 0)
    context.cleanup()


def test_fault_5_the_hosts_file_keeps_its_owner(guard: Guard) -> None:
    image = guard.file("image")
    contexts = [guard.context(f"vm{uid}", uid=uid, gid=uid) for uid in (20001, 20002)]
    for context in contexts:
        context.jailed_path(image, create=True, create_jail=True)
    assert owner(image) == (0, 0)
    placed = [os.path.join(context.chroot_path(), "image") for context in contexts]
    assert [owner(path) for path in placed] == [(20001, 20001), (20002, 20002)]
    for context in contexts:
        context.cleanup()
    assert image.read_text() == "content\n"


def test_fault_6_removal_does_not_cross_into_a_mount(guard: Guard) -> None:
    images = guard.directory / "images"
    images.mkdir()
    (images / "precious").write_text("precious")
    context = guard.context()
    context.jailed_path("/x", create_jail=True)
    inside = Path(context.chroot_path(), "images")
    inside.mkdir()
    subprocess.run(["mount", "--bind", str(images), str(inside)], check=True)
    try:
        with pytest.warns(ResourceWarning, match="mounted there"):
            context.cleanup()
        assert (images / "precious").read_text() == "precious"
    finally:
        subprocess.run(["umount", str(inside)], check=True)
    assert guard.stockade("gc").returncode == 0
    assert not guard.base.exists()


def test_fault_7_no_program_is_run(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    context, image = guard.context(cgroups=["pids.max=9"], parent_cgroup=guard.name), guard.file("image")
    # No program can be found on this PATH.
    monkeypatch.setenv("PATH", "/nowhere")
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    last = last_pid()
    context.setup(use_ramdisk=True)
    context.jailed_path(image, create=True, create_jail=True)
    context.copy_into_root(str(image))
    context.cleanup()
    assert children.read_text() == ""
    # Other processes of the host may fork too, but not often.
    assert last_pid() - last < 50


def last_pid() -> int:
    return int(Path("/proc/loadavg").read_text().split()[4])


def test_fault_8_gc_removes_the_jail_of_a_killed_interpreter(guard: Guard) -> None:
    more = "sys.stdin.read()"
    with subprocess.Popen(
        interpreter(guard, more), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as python:
        assert python.stdout is not None
        pid = int(python.stdout.readline())
        python.send_signal(signal.SIGKILL)
    assert is_running(pid) and guard.netns(guard.named("vm")) and ramfs_mounts(guard.base)
    assert f"{guard.named('vm')} " in guard.stockade("ps").stdout
    collected = guard.stockade("gc")
    assert collected.returncode == 0, collected.stderr
    assert not is_running(pid) and not guard.netns(guard.named("vm")) and not guard.base.exists()


def test_fault_8_a_new_context_of_the_id_removes_the_remains(guard: Guard) -> None:
    more = "import os; os.kill(os.getpid(), 9)"
    killed = subprocess.run(interpreter(guard, more), stdout=subprocess.PIPE, text=True, timeout=30)
    assert killed.returncode == -9
    pid = int(killed.stdout)
    context = guard.context()
    context.setup()
    assert not is_running(pid)
    guard.start(context)
    context.cleanup()


def test_a_forked_copy_does_not_remove_the_jail(guard: Guard) -> None:
    context = guard.context()
    context.setup()
    vmm = guard.start(context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            context.cleanup()
            del context
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_running(vmm)
    context.cleanup()


def test_64_jails_at_once_from_4_threads(guard: Guard) -> None:
    image = guard.file("image")
    contexts = [guard.context(f"vm{number}") for number in range(64)]
    failures: List[BaseException] = []

    def live(own: list) -> None:  # type: ignore[type-arg]
        try:
            for context in own:
                context.setup()
                context.jailed_path(image, create=True, create_jail=True)
                guard.start(context)
            together.wait(timeout=60)
            for context in own:
                context.cleanup()
        except BaseException as failure:  # noqa: BLE001
            failures.append(failure)
            together.abort()

    together = threading.Barrier(5)
    threads = [threading.Thread(target=live, args=(contexts[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    try:
        while together.n_waiting < 4 and not together.broken:
            threads[0].join(0.005)
        if not together.broken:
            assert len(list((guard.base / "stockade-probe").iterdir())) == 64
        together.wait(timeout=60)
    finally:
        for thread in threads:
            thread.join()
    assert failures == []


def test_the_jails_owner_is_the_contexts(guard: Guard) -> None:
    context = guard.context(daemonize=False)
    context.setup()
    guard.start(context, "report")
    output, _ = guard.processes[0].communicate(timeout=20)
    assert f'"uid":{UID}' in output.replace(" ", "") and f'"gid":{GID}' in output.replace(" ", "")
    context.cleanup()


assert sys.version_info >= (3, 9)
