"""The effects of JailerContext on the host (S6, S7, S9 to S11), with real jails."""

from __future__ import annotations

import gc
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, List

import pytest
from conftest import GID, UID, Guard, is_running, needs_v1, owner, ramfs_mounts

from stockade import InTheWay, JailerContext

# S9: setup


def test_s9_setup_creates_the_base_and_the_network_namespace(guard: Guard) -> None:
    context = guard.context()
    context.setup()
    assert guard.base.is_dir()
    assert guard.netns(guard.named("vm"))
    assert not os.path.exists(context.chroot_base_with_id())
    context.cleanup()
    assert not guard.base.exists() and not guard.netns(guard.named("vm"))


def test_s9_ip_knows_the_network_namespace(guard: Guard) -> None:
    context = guard.context()
    context.setup()
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert guard.named("vm") in [line.split()[0] for line in listed.splitlines()]
    run = [*context.netns_cmd_prefix().split(), "ip", "-o", "link"]
    links = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert all(" lo: " in f" {link}" for link in links), links


@pytest.mark.parametrize("netns", [None, ""])
def test_s9_without_a_name_no_namespace_is_created(guard: Guard, netns: Any) -> None:
    context = guard.context()
    context.netns = netns
    before = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    context.setup()
    assert not os.path.isdir("/run/netns") or set(os.listdir("/run/netns")) == before
    context.cleanup()


def test_s9_a_ramfs_of_the_jails_owner(guard: Guard) -> None:
    context = guard.context()
    context.setup(use_ramdisk=True)
    at = context.chroot_ramfs_path()
    assert len(ramfs_mounts(at)) == 1
    assert ramfs_mounts(at)[0].startswith(f"ramfs-{guard.named('vm')} ")
    assert owner(at) == (UID, GID)
    Path(at, "file").write_text("kept in memory")
    context.cleanup()
    assert ramfs_mounts(guard.base) == []


def test_s9_the_ramfs_has_the_fields_name(guard: Guard) -> None:
    context = guard.context()
    context.ramfs_subdir_name = "memory"
    context.setup(use_ramdisk=True)
    assert ramfs_mounts(os.path.join(context.chroot_path(), "memory"))
    context.cleanup()


def test_s9_a_jail_with_a_ramfs_starts(guard: Guard) -> None:
    context = guard.context()
    context.setup(use_ramdisk=True)
    pid = guard.start(context, "write=/ramfs/said=hello", "sleep")
    wait_for(Path(context.chroot_ramfs_path(), "said"))
    context.cleanup()
    assert not is_running(pid)


def wait_for(path: Path) -> None:
    """Waits for a file that the VMM writes after the jailer has returned."""
    import time

    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.002)


def test_s9_setup_twice_is_setup_once(guard: Guard) -> None:
    context = guard.context()
    for _ in range(2):
        context.setup(use_ramdisk=True)
    assert len(ramfs_mounts(context.chroot_ramfs_path())) == 1
    context.cleanup()


def test_s9_a_context_can_be_set_up_again_after_cleanup(guard: Guard) -> None:
    context = guard.context()
    for _ in range(3):
        context.setup()
        guard.start(context)
        context.cleanup()
        assert not guard.base.exists()


def test_s9_the_default_base_is_used_for_none(guard: Guard) -> None:
    context = guard.context(chroot_base=None)
    assert context.chroot_base_with_id().startswith("/srv/jailer/stockade-probe/")
    existed = os.path.isdir("/srv/jailer")
    context.setup()
    assert os.path.isdir("/srv/jailer")
    context.cleanup()
    assert os.path.isdir("/srv/jailer") == existed


def test_s9_an_existing_base_remains(guard: Guard) -> None:
    kept = guard.directory / "kept"
    kept.mkdir()
    context = guard.context(chroot_base=str(kept))
    context.setup()
    guard.start(context)
    context.cleanup()
    assert list(kept.iterdir()) == []


@pytest.mark.parametrize("jailer_id", ["", None, "a/b", "under_score", "x" * 65, ".."])
def test_s9_a_jailer_id_may_be_invalid(guard: Guard, jailer_id: Any) -> None:
    context = guard.context(netns=guard.named("net"))
    context.jailer_id = jailer_id
    context.setup()
    command = [str(guard.jailer), *context.construct_param_list()]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert refused.returncode != 0
    context.cleanup()


# S10


def test_s10_a_ramfs_is_used_after_setup(guard: Guard) -> None:
    context = guard.context()
    context.setup()
    assert context.uses_ramfs is False
    context.setup(use_ramdisk=True)
    assert context.uses_ramfs is True
    context.cleanup()


# S6: jailed_path


def test_s6_a_file_is_placed_for_the_jails_owner(guard: Guard) -> None:
    context, image = guard.context(), guard.file("image")
    context.setup()
    assert context.jailed_path(image, create=True, create_jail=True) == "/image"
    placed = Path(context.chroot_path(), "image")
    assert placed.read_text() == "content\n"
    assert owner(placed) == (UID, GID)
    context.cleanup()


def test_s6_a_file_of_the_owner_is_hard_linked(guard: Guard) -> None:
    context, image = guard.context(), guard.file("image")
    os.chown(image, UID, GID)
    context.jailed_path(str(image), create=True, create_jail=True)
    assert os.path.samefile(image, os.path.join(context.chroot_path(), "image"))
    context.cleanup()
    assert image.read_text() == "content\n"


def test_s6_a_placed_file_replaces_an_existing_one(guard: Guard) -> None:
    context, image = guard.context(), guard.file("image", "a longer content that was first\n")
    context.jailed_path(image, create=True, create_jail=True)
    guard.file("image", "new\n")
    context.jailed_path(image, create=True)
    assert Path(context.chroot_path(), "image").read_text() == "new\n"
    context.cleanup()


def test_s6_a_file_of_another_filesystem_is_copied(guard: Guard) -> None:
    context = guard.context()
    elsewhere = Path("/dev/shm") / guard.name
    elsewhere.write_text("from afar")
    try:
        os.chown(elsewhere, UID, GID)
        context.jailed_path(elsewhere, create=True, create_jail=True)
        placed = Path(context.chroot_path(), guard.name)
        assert placed.read_text() == "from afar" and owner(placed) == (UID, GID)
        context.cleanup()
    finally:
        elsewhere.unlink()


def test_s6_a_block_device_becomes_a_node(guard: Guard) -> None:
    context, device = guard.context(), guard.directory / "disk"
    os.mknod(device, stat.S_IFBLK | 0o660, os.makedev(7, 250))
    assert context.jailed_path(device, create=True, create_jail=True) == "/disk"
    facts = os.lstat(os.path.join(context.chroot_path(), "disk"))
    assert stat.S_ISBLK(facts.st_mode) and facts.st_rdev == os.makedev(7, 250)
    assert stat.S_IMODE(facts.st_mode) == 0o600
    assert (facts.st_uid, facts.st_gid) == (UID, GID)
    assert owner(device) == (0, 0)
    context.cleanup()


def test_s6_without_create_nothing_is_created(guard: Guard) -> None:
    context, image = guard.context(), guard.file("image")
    assert context.jailed_path(image) == "/image"
    assert not guard.base.exists()


def test_s6_create_jail_alone_creates_the_root(guard: Guard) -> None:
    context = guard.context()
    assert context.jailed_path("/no/such/file", create_jail=True) == "/file"
    assert os.path.isdir(context.chroot_path())
    context.cleanup()


def test_s6_without_a_root_creating_fails(guard: Guard) -> None:
    context = guard.context()
    with pytest.raises(FileNotFoundError):
        context.jailed_path(guard.file("image"), create=True)


def test_s6_a_missing_file_is_refused(guard: Guard) -> None:
    context = guard.context()
    with pytest.raises(FileNotFoundError):
        context.jailed_path(guard.directory / "missing", create=True, create_jail=True)
    context.cleanup()


def test_s6_a_directory_is_refused(guard: Guard) -> None:
    context = guard.context()
    with pytest.raises(IsADirectoryError):
        context.jailed_path(guard.directory, create=True, create_jail=True)
    context.cleanup()


def test_s6_a_symlinks_target_is_placed_under_its_name(guard: Guard) -> None:
    context, image = guard.context(), guard.file("image")
    symlink = guard.directory / "latest"
    symlink.symlink_to(image)
    assert context.jailed_path(symlink, create=True, create_jail=True) == "/latest"
    placed = Path(context.chroot_path(), "latest")
    assert not placed.is_symlink() and placed.read_text() == "content\n"
    context.cleanup()


def test_s6_the_vmm_reads_a_placed_file(guard: Guard) -> None:
    context, image = guard.context(daemonize=False), guard.file("image", "seen from inside")
    context.setup()
    path = context.jailed_path(image, create=True, create_jail=True)
    guard.start(context, f"read={path}")
    output, _ = guard.processes[0].communicate(timeout=20)
    assert "seen from inside" in output
    context.cleanup()


def test_s6_a_file_can_be_placed_while_the_vmm_runs(guard: Guard) -> None:
    context, image = guard.context(), guard.file("image")
    context.setup()
    pid = guard.start(context)
    context.jailed_path(image, create=True, create_jail=True)
    assert owner(os.path.join(context.chroot_path(), "image")) == (UID, GID)
    assert is_running(pid) and guard.pid(context) == pid
    context.cleanup()


# S7: copy_into_root


def test_s7_a_file_is_copied_to_the_same_path(guard: Guard) -> None:
    context, image = guard.context(), guard.file("image")
    assert context.copy_into_root(str(image), create_jail=True) is None  # type: ignore[func-returns-value]
    placed = Path(context.chroot_path() + str(image))
    assert placed.read_text() == "content\n"
    assert owner(placed) == (UID, GID)
    assert not os.path.samefile(image, placed)
    context.cleanup()


def test_s7_missing_directories_are_created(guard: Guard) -> None:
    context, image = guard.context(), guard.file("image")
    context.copy_into_root(str(image))
    assert os.path.isfile(context.chroot_path() + str(image))
    context.cleanup()


def test_s7_a_relative_path_is_resolved(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    context = guard.context()
    (guard.directory / "sub").mkdir()
    guard.file("sub/image")
    monkeypatch.chdir(guard.directory)
    context.copy_into_root("sub/image")
    assert os.path.isfile(os.path.join(context.chroot_path(), "sub", "image"))
    context.cleanup()


def test_s7_a_copy_replaces_an_existing_file(guard: Guard) -> None:
    context, image = guard.context(), guard.file("image", "old and long\n")
    context.copy_into_root(str(image))
    guard.file("image", "new\n")
    context.copy_into_root(str(image))
    assert Path(context.chroot_path() + str(image)).read_text() == "new\n"
    context.cleanup()


def test_s7_an_owners_file_is_copied_too(guard: Guard) -> None:
    context, image = guard.context(), guard.file("image")
    os.chown(image, UID, GID)
    context.copy_into_root(str(image))
    assert not os.path.samefile(image, context.chroot_path() + str(image))
    context.cleanup()


def test_s7_a_path_out_of_the_jail_is_refused(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    context = guard.context()
    (guard.directory / "sub").mkdir()
    guard.file("image")
    monkeypatch.chdir(guard.directory / "sub")
    with pytest.raises(ValueError, match="image"):
        context.copy_into_root("../image")
    context.cleanup()


# S11: cleanup


def test_s11_cleanup_twice_is_harmless(guard: Guard) -> None:
    context = guard.context()
    context.setup(use_ramdisk=True)
    guard.start(context)
    context.cleanup()
    context.cleanup()


def test_s11_the_destructor_cleans_up(guard: Guard) -> None:
    context = guard.context()
    context.setup()
    pid = guard.start(context)
    del context
    gc.collect()
    assert not is_running(pid) and not guard.base.exists()


def test_s11_the_directory_of_other_jails_remains(guard: Guard) -> None:
    first, second = guard.context("a"), guard.context("b")
    for context in (first, second):
        context.setup()
        guard.start(context)
    first.cleanup()
    assert not os.path.exists(first.chroot_base_with_id())
    assert is_running(guard.pid(second))
    second.cleanup()


def test_s11_a_jail_without_setup_is_cleaned_up(guard: Guard) -> None:
    context = guard.context()
    context.netns = None
    guard.base.mkdir()
    pid = guard.start(context)
    context.cleanup()
    assert not is_running(pid)
    assert not os.path.exists(context.chroot_base_with_id())
    os.rmdir(os.path.dirname(context.chroot_base_with_id()))
    guard.base.rmdir()


def test_s11_another_context_does_not_remove_the_jail(guard: Guard) -> None:
    context = guard.context()
    context.setup()
    pid = guard.start(context)
    guard.context().cleanup()
    assert is_running(pid), "the VMM belongs to another context"
    context.cleanup()


def test_s11_a_vmm_in_the_foreground_is_killed(guard: Guard) -> None:
    context = guard.context(daemonize=False)
    context.setup()
    guard.start(context, "write=/up=1", "sleep")
    wait_for(Path(context.chroot_path(), "up"))
    context.cleanup()
    assert guard.processes[0].wait(timeout=20) == -9


def test_s11_a_vmm_in_its_own_pid_namespace_is_killed(guard: Guard) -> None:
    context = guard.context(new_pid_ns=True)
    context.setup()
    pid = guard.start(context, "spawn=3", "sleep")
    context.cleanup()
    assert not is_running(pid)


def test_s11_old_and_new_values_of_fields_are_cleaned_up(guard: Guard) -> None:
    context = guard.context()
    context.setup()
    first = guard.start(context)
    context.jailer_id, context.netns = guard.named("other"), None
    context.chroot_base = str(guard.directory / "base2")
    context.setup()
    second = guard.start(context)
    context.cleanup()
    assert not is_running(first) and not is_running(second)
    assert not guard.netns(guard.named("vm"))
    assert not (guard.directory / "base2").exists()


@pytest.mark.parametrize("field", ["jailer_id", "exec_file", "chroot_base", "netns", "cgroups", "uid"])
def test_s11_a_field_set_to_none_after_setup_leaves_nothing(guard: Guard, field: str) -> None:
    needs_v1("pids")
    context = guard.context(cgroups=["pids.max=50"], parent_cgroup=guard.name)
    context.setup()
    pid = guard.start(context)
    setattr(context, field, None)
    context.cleanup()
    assert not is_running(pid)


def test_s11_a_later_namespace_of_a_new_name_is_removed(guard: Guard) -> None:
    context, name = guard.context(), guard.named("later")
    context.setup()
    context.netns = name
    subprocess.run(["ip", "netns", "add", name], check=True)
    context.cleanup()
    assert not guard.netns(name)


def test_s11_an_existing_namespace_remains(guard: Guard) -> None:
    name = guard.named("other")
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        context = guard.context(netns=name)
        context.setup()
        guard.start(context)
        context.cleanup()
        assert guard.netns(name)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.parametrize("set_up", [True, False])
def test_s11_a_symlink_as_executable_leaves_nothing(guard: Guard, set_up: bool) -> None:
    # The jailer names the jail's directory after the symbolic link's target.
    symlink = guard.directory / "latest-vmm"
    symlink.symlink_to(guard.vmm)
    context = guard.context(exec_file=str(symlink), netns=guard.named("net") if set_up else "")
    context.netns = context.netns or None
    if set_up:
        context.setup()
    else:
        guard.base.mkdir()
    daemonized = [str(guard.jailer), *context.construct_param_list(), "--", "sleep"]
    subprocess.run(daemonized, check=True, timeout=20)
    root = guard.base / "stockade-probe" / guard.named("vm") / "root"
    pid = int((root / "stockade-probe.pid").read_text())
    context.cleanup()
    assert not is_running(pid) and not root.exists()
    if not set_up:
        (guard.base / "stockade-probe").rmdir()
        guard.base.rmdir()


def test_s11_the_parent_cgroup_remains(guard: Guard) -> None:
    pids = needs_v1("pids")
    context = guard.context(cgroups=["pids.max=50"], parent_cgroup=guard.name)
    context.setup()
    guard.start(context)
    assert (pids / guard.name / guard.named("vm")).is_dir()
    context.cleanup()
    assert (pids / guard.name).is_dir()
    assert list((pids / guard.name).glob("*/")) == []


def test_s11_cgroups_below_the_jails_cgroup_are_removed(guard: Guard) -> None:
    pids = needs_v1("pids")
    context = guard.context(cgroups=["pids.max=50"], parent_cgroup=guard.name)
    context.setup()
    guard.start(context)
    (pids / guard.name / guard.named("vm") / "below" / "deeper").mkdir(parents=True)
    context.cleanup()
    assert not (pids / guard.name / guard.named("vm")).exists()


def test_s11_cleanup_after_a_failed_start(guard: Guard) -> None:
    context = guard.context(cgroups=["pids.max=nonsense"], parent_cgroup=guard.name)
    context.setup()
    with pytest.raises(subprocess.CalledProcessError):
        guard.start(context)
    context.cleanup()


def test_s11_at_the_interpreters_exit(guard: Guard) -> None:
    run_to_the_end(guard, "")


def test_s11_at_the_interpreters_exit_after_an_exception(guard: Guard) -> None:
    run_to_the_end(guard, "raise SystemExit(3)", code=3)


def test_s11_at_the_interpreters_exit_within_a_cycle(guard: Guard) -> None:
    run_to_the_end(guard, "context.self = context; del context")


SCRIPT = """
import subprocess, sys
from stockade import JailerContext
jailer, vmm, base, name = sys.argv[1:]
context = JailerContext(name, vmm, chroot_base=base)
context.setup(use_ramdisk=True)
subprocess.run([jailer, *context.construct_param_list(), "--", "sleep"], check=True)
print(open(f"{context.chroot_path()}/stockade-probe.pid").read(), flush=True)
"""


def interpreter(guard: Guard, more: str) -> List[str]:
    script = SCRIPT + textwrap.dedent(more)
    return [sys.executable, "-c", script, *map(str, (guard.jailer, guard.vmm, guard.base)), guard.named("vm")]


def run_to_the_end(guard: Guard, more: str, code: int = 0) -> None:
    done = subprocess.run(interpreter(guard, more), stdout=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == code
    assert not is_running(int(done.stdout))
    assert not guard.base.exists() and not guard.netns(guard.named("vm"))


def test_a_subclass_that_overrides_a_method_works(guard: Guard) -> None:
    called: List[str] = []

    class Mine(JailerContext):
        def chroot_base_with_id(self) -> str:
            called.append("chroot_base_with_id")
            return super().chroot_base_with_id()

        def cleanup(self) -> None:
            called.append("cleanup")
            super().cleanup()

    context = Mine(guard.named("vm"), str(guard.vmm), chroot_base=str(guard.base))
    context.setup()
    guard.start(context)
    assert context.chroot_path() and "chroot_base_with_id" in called
    del context
    gc.collect()
    assert "cleanup" in called and not guard.base.exists()


def test_a_subclass_without_the_constructor_can_be_destroyed() -> None:
    class Forgetful(JailerContext):
        def __init__(self) -> None:
            pass

    Forgetful().cleanup()


def test_a_stockade_jail_with_the_same_directory_is_untouched(guard: Guard) -> None:
    arguments = ["--id", guard.named("vm"), "--exec-file", str(guard.vmm), "--chroot-base-dir", str(guard.base)]
    assert guard.stockade("create", *arguments).returncode == 0
    context = guard.context(netns="")
    with pytest.raises(InTheWay, match=guard.named("vm")):
        context.jailed_path(guard.file("image"), create=True, create_jail=True)
    context.cleanup()
    assert os.path.exists(os.path.join(context.chroot_path(), "stockade-probe"))
    assert guard.stockade("rm", guard.named("vm")).returncode == 0


def test_the_command_lists_a_context_and_does_not_remove_it(guard: Guard) -> None:
    context = guard.context()
    context.setup()
    pid = guard.start(context)
    assert f"{guard.named('vm')} " in guard.stockade("ps").stdout
    refused = guard.stockade("rm", guard.named("vm"))
    assert refused.returncode != 0 and "locked" in refused.stderr
    assert guard.stockade("gc").returncode == 0
    assert is_running(pid)
    context.cleanup()
