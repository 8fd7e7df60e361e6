"""The behaviour that both classes JailerContext have in common, with real jails: each test runs with each class."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import warnings
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import GID, UID, AnyContext, Guard, cgroup_mounts, is_running, needs_v1, owner, program, wait_until

from stockade import InTheWay, InvalidSpec, JailerContext, StockadeError

Make = Callable[..., AnyContext]


@pytest.fixture(params=["may_2023", "today"])
def make(guard: Guard, request: pytest.FixtureRequest) -> Make:
    """Creates contexts of one of the two classes, without a network namespace."""

    def may_2023(*suffix: str, **fields: Any) -> JailerContext:
        context = guard.context(*suffix, **fields)
        context.netns = None
        return context

    return may_2023 if request.param == "may_2023" else guard.today


def place(context: AnyContext, file: Path, **options: Any) -> Path:
    """Places a file, and returns its path on the host."""
    if isinstance(context, JailerContext):
        options["create_jail"] = True
    inside = context.jailed_path(file, create=True, **options)
    assert inside == f"/{file.name}"
    return Path(context.chroot_path(), file.name)


def own_file(context: AnyContext, name: str, content: str = "") -> Path:
    """A file of the caller in the jail's own directory."""
    path = Path(context.chroot_base_with_id(), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


# What a jail shares


@pytest.mark.parametrize("share", [None, True, False])
def test_a_file_beside_the_root(make: Make, share: Any) -> None:
    context = make(share=share)
    context.setup()
    file = own_file(context, "file", "content")
    placed = place(context, file)
    assert owner(placed) == (UID, GID) and placed.read_text() == "content"
    assert placed.samefile(file) == (share is not False)
    assert owner(file) == ((0, 0) if share is False else (UID, GID))
    context.cleanup()


@pytest.mark.parametrize("share", [None, True, False])
def test_a_file_elsewhere(guard: Guard, make: Make, share: Any) -> None:
    context, file = make(), guard.file("image")
    placed = place(context, file, share=share)
    assert owner(placed) == (UID, GID) and placed.samefile(file) == (share is True)
    assert owner(file) == ((UID, GID) if share else (0, 0))
    context.cleanup()
    assert file.read_text() == "content\n"


@pytest.mark.parametrize("share", [None, True, False])
def test_a_named_pipe(guard: Guard, make: Make, share: Any) -> None:
    context, pipe = make(share=share), guard.directory / "pipe"
    os.mkfifo(pipe)
    if share is False:
        with pytest.raises(InvalidSpec, match=f"^file_path: '{pipe}' was not created for this jail"):
            place(context, pipe)
        os.chown(pipe, UID, GID)
    placed = place(context, pipe)
    assert placed.samefile(pipe) and stat.S_ISFIFO(placed.lstat().st_mode) and owner(placed) == (UID, GID)
    context.cleanup()


def test_a_socket_answers_the_jail(guard: Guard, make: Make) -> None:
    context, path = make(), guard.directory / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        placed = place(context, path)
        assert placed.samefile(path) and owner(placed) == (UID, GID)
        listener.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(placed))
    context.cleanup()
    assert stat.S_ISSOCK(path.lstat().st_mode)


@pytest.mark.parametrize("others", [(1000, 1000), (UID + 1, GID)])
def test_a_named_pipe_of_another_user_is_refused(guard: Guard, make: Make, others: Any) -> None:
    context, pipe = make(), guard.directory / "pipe"
    os.mkfifo(pipe)
    os.chown(pipe, *others)
    with pytest.raises(InvalidSpec, match="was not created for this jail"):
        place(context, pipe)
    assert owner(pipe) == others
    assert owner(place(context, pipe, share=True)) == (UID, GID)
    context.cleanup()


def test_a_named_pipe_of_another_filesystem_is_refused(guard: Guard, make: Make) -> None:
    context, pipe = make(), Path("/dev/shm") / guard.name
    os.mkfifo(pipe)
    try:
        with pytest.raises(InvalidSpec, match="on another filesystem than the jail"):
            place(context, pipe)
        assert owner(pipe) == (0, 0)
        context.cleanup()
    finally:
        pipe.unlink()


def test_a_missing_socket_or_file_is_refused(guard: Guard, make: Make) -> None:
    context = make()
    with pytest.raises(FileNotFoundError):
        place(context, guard.directory / "missing")
    context.cleanup()


@pytest.mark.parametrize("bits", [stat.S_ISUID, stat.S_ISGID])
def test_a_privileged_file_is_never_shared(guard: Guard, make: Make, bits: int) -> None:
    context = make(share=True)
    context.setup()
    for file in (own_file(context, "own"), guard.file("elsewhere")):
        file.chmod(0o755 | bits)
        placed = place(context, file)
        assert not placed.samefile(file) and stat.S_IMODE(placed.stat().st_mode) == 0o755
        assert owner(file) == (0, 0) and stat.S_IMODE(file.stat().st_mode) == 0o755 | bits
    context.cleanup()


def test_a_hard_link_to_a_file_of_others_is_copied(guard: Guard, make: Make) -> None:
    context, image = make(), guard.file("image")
    context.setup()
    own_file(context, "other")
    linked = Path(context.chroot_base_with_id(), "linked")
    os.link(image, linked)
    placed = place(context, linked)
    assert not placed.samefile(image) and owner(placed) == (UID, GID) and owner(image) == (0, 0)
    context.cleanup()


def test_a_symlink_of_the_caller_in_the_own_directory_is_copied(guard: Guard, make: Make) -> None:
    context, image = make(), guard.file("image")
    context.setup()
    own_file(context, "other")
    symlink = Path(context.chroot_base_with_id(), "latest")
    symlink.symlink_to(image)
    placed = place(context, symlink)
    assert placed.read_text() == "content\n" and not placed.samefile(image) and owner(image) == (0, 0)
    context.cleanup()


@pytest.mark.parametrize("how", ["file", "directory"])
def test_a_symlink_of_the_jail_is_not_followed(guard: Guard, make: Make, how: str) -> None:
    context, victim = make(share=True), guard.file("victim", "secret")
    context.setup()
    guard.start(context)
    root = Path(context.chroot_path())
    (root / "link").symlink_to(victim if how == "file" else guard.directory)
    source = root / "link" if how == "file" else root / "link" / "victim"
    with pytest.raises(InvalidSpec, match="leads through the jail's root by a symbolic link"):
        place(context, source)
    with pytest.raises(InvalidSpec, match="leads through the jail's root by a symbolic link"):
        context.copy_into_root(str(source))
    assert owner(victim) == (0, 0) and victim.stat().st_nlink == 1
    context.cleanup()


def test_a_symlink_in_the_place_of_the_target_is_replaced(guard: Guard, make: Make) -> None:
    context, victim = make(), guard.file("victim", "untouched")
    context.setup()
    guard.start(context)
    file = own_file(context, "log")
    Path(context.chroot_path(), "log").symlink_to(victim)
    assert place(context, file).samefile(file)
    assert owner(victim) == (0, 0) and victim.read_text() == "untouched"
    context.cleanup()


def test_a_file_can_be_shared_again_after_a_change(guard: Guard, make: Make) -> None:
    context = make()
    context.setup()
    file = own_file(context, "log", "first")
    for uid in (UID, UID + 1):
        context.uid = uid
        placed = place(context, file)
        assert placed.samefile(file) and owner(file) == (uid, GID)
    context.cleanup()


def test_the_own_directory_of_another_jail_is_not_the_own(guard: Guard, make: Make) -> None:
    other, context = make("other"), make("vm")
    other.setup()
    context.setup()
    file = own_file(other, "log")
    assert not place(context, file).samefile(file) and owner(file) == (0, 0)
    for one in (context, other):
        one.cleanup()


def test_a_relative_path_to_the_own_directory_is_shared(
    guard: Guard, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make()
    context.setup()
    file = own_file(context, "log")
    monkeypatch.chdir(file.parent)
    assert place(context, Path("log")).samefile(file)
    context.cleanup()


def test_a_base_behind_a_symlink_is_the_same_base(guard: Guard, make: Make) -> None:
    (guard.directory / "real").mkdir()
    symlink = guard.directory / "symlink"
    symlink.symlink_to("real")
    context = make(chroot_base=str(symlink))
    context.setup()
    for path in (own_file(context, "a"), own_file(context, "b").resolve()):
        assert place(context, path).samefile(path) and owner(path) == (UID, GID)
    context.cleanup()
    assert list((guard.directory / "real").iterdir()) == []


# Lives


def test_a_vmm_runs_and_is_removed(guard: Guard, make: Make) -> None:
    context = make()
    context.setup()
    pid = guard.start(context)
    assert is_running(pid)
    context.cleanup()
    context.cleanup()
    assert not is_running(pid) and not guard.base.exists()


def test_a_jail_restarts_with_the_same_id(guard: Guard, make: Make) -> None:
    for number in range(3):
        context = make()
        context.setup()
        file = own_file(context, "log", str(number))
        assert place(context, file).samefile(file)
        pid = guard.start(context)
        context.cleanup()
        assert not is_running(pid) and not guard.base.exists()


def test_a_jail_restarts_within_one_context(guard: Guard, make: Make) -> None:
    context = make()
    context.setup()
    file = own_file(context, "log")
    for _ in range(2):
        assert place(context, file).samefile(file)
        pid = guard.start(context)
        os.kill(pid, 9)
        wait_until(lambda pid=pid: not is_running(pid), "the end of the VMM")  # type: ignore[misc]
        Path(context.chroot_path(), "stockade-probe.pid").unlink()
    context.cleanup()


def test_the_vmm_reads_and_writes_a_shared_file(guard: Guard, make: Make) -> None:
    context = make(daemonize=False)
    context.setup()
    file = own_file(context, "shared", "from the caller")
    place(context, file)
    guard.start(context, "read=/shared", "write=/shared=from the VMM")
    output, _ = guard.processes[0].communicate(timeout=20)
    assert "from the caller" in output and file.read_text() == "from the VMM"
    context.cleanup()


def test_a_vmm_in_its_own_pid_namespace_is_removed(guard: Guard, make: Make) -> None:
    context = make(new_pid_ns=True)
    context.setup()
    pid = guard.start(context, "spawn=3", "sleep")
    context.cleanup()
    assert not is_running(pid)


def test_cgroups_are_removed(guard: Guard, make: Make) -> None:
    pids = needs_v1("pids")
    context = make(cgroups=["pids.max=50"], parent_cgroup=guard.name)
    context.setup()
    pid = guard.start(context)
    assert str(pid) in (pids / guard.name / guard.named("vm") / "tasks").read_text().split()
    context.cleanup()
    assert not is_running(pid) and not (pids / guard.name / guard.named("vm")).exists()


def test_an_absurd_id_removes_no_cgroup(guard: Guard, make: Make) -> None:
    # The directory HIERARCHY/PARENT/ID of an id with a slash, or of the empty one, may be that of others.
    mount = next(iter(cgroup_mounts().values()))
    below = mount / guard.name / guard.named("vm")
    below.mkdir(parents=True)
    for jailer_id in ("", f"x/../{guard.named('vm')}", f"{guard.named('vm')}/", "."):
        context = make(cgroups=["pids.max=50"], parent_cgroup=guard.name)
        context.jailer_id = jailer_id
        context.setup()
        place(context, guard.file("image"))
        context.construct_param_list()
        context.cleanup()
        assert below.is_dir()


def test_a_ramfs_is_removed(guard: Guard, make: Make) -> None:
    context = make()
    context.setup(use_ramdisk=True)
    assert os.path.ismount(context.chroot_ramfs_path()) and owner(context.chroot_ramfs_path()) == (UID, GID)
    context.cleanup()
    assert not guard.base.exists()


def test_a_jail_without_setup_is_removed_by_its_name(guard: Guard, make: Make) -> None:
    guard.base.mkdir()
    context = make()
    pid = guard.start(context)
    context.cleanup()
    assert not is_running(pid) and not os.path.exists(context.chroot_base_with_id())
    (guard.base / "stockade-probe").rmdir()
    guard.base.rmdir()


def test_a_foreign_mount_is_left_with_a_warning(guard: Guard, make: Make) -> None:
    precious = guard.file("precious")
    context = make()
    context.setup()
    place(context, guard.file("image"))
    inside = Path(context.chroot_path(), "images")
    inside.mkdir()
    subprocess.run(["mount", "--bind", str(guard.directory), str(inside)], check=True)
    try:
        with pytest.warns(ResourceWarning, match="mounted there"):
            context.cleanup()
        assert precious.read_text() == "content\n"
    finally:
        subprocess.run(["umount", str(inside)], check=True)
    assert guard.stockade("gc").returncode == 0


def test_a_file_behind_a_mount_keeps_its_owner(guard: Guard, make: Make) -> None:
    context, file = make(), guard.file("image")
    context.setup()
    mounted = own_file(context, "file").parent / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "--bind", str(guard.directory), str(mounted)], check=True)
    try:
        placed = place(context, mounted / "image")
        assert owner(placed) == (UID, GID) and not placed.samefile(file) and owner(file) == (0, 0)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    context.cleanup()


def test_a_forked_copy_removes_nothing(guard: Guard, make: Make) -> None:
    context = make()
    context.setup()
    pid = guard.start(context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            context.cleanup()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_running(pid)
    context.cleanup()


def test_a_jail_of_stockade_is_in_the_way(guard: Guard, make: Make) -> None:
    arguments = ["--id", guard.named("vm"), "--exec-file", str(guard.vmm), "--chroot-base-dir", str(guard.base)]
    assert guard.stockade("create", *arguments).returncode == 0
    context = make()
    with pytest.raises(InTheWay, match=guard.named("vm")):
        place(context, guard.file("image"))
    context.cleanup()
    assert guard.stockade("rm", guard.named("vm")).returncode == 0


def test_a_symlink_as_executable_leaves_nothing(guard: Guard, make: Make) -> None:
    symlink = guard.directory / "latest-vmm"
    symlink.symlink_to(guard.vmm)
    context = make(exec_file=str(symlink))
    context.setup()
    command = [str(guard.jailer), *context.construct_param_list(), "--", "sleep"]
    subprocess.run(command, check=True, timeout=20)
    root = guard.base / "stockade-probe" / guard.named("vm") / "root"
    pid = int((root / "stockade-probe.pid").read_text())
    context.cleanup()
    assert not is_running(pid) and not guard.base.exists()


def test_a_failed_start_leaves_nothing(guard: Guard, make: Make) -> None:
    context = make(cgroups=["pids.max=nonsense"], parent_cgroup=guard.name)
    context.setup()
    with pytest.raises(subprocess.CalledProcessError):
        guard.start(context)
    context.cleanup()


def test_the_api_socket_of_the_vmm_is_found(guard: Guard, make: Make) -> None:
    context = make(exec_file=str(program("stand-in")), **{"api-sock": "/run/api.socket"})
    context.setup()
    guard.start(context)
    wait_until(lambda: os.path.exists(context.api_socket_path()), "the socket")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(context.api_socket_path())
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        client.settimeout(20)
        assert guard.named("vm").encode() in client.recv(4096)
    context.cleanup()


def test_a_directory_is_refused(guard: Guard, make: Make) -> None:
    context = make()
    with pytest.raises(IsADirectoryError):
        place(context, guard.directory)
    context.cleanup()


def test_a_directory_in_the_place_of_a_shared_file_is_an_error(guard: Guard, make: Make) -> None:
    context = make()
    context.setup()
    file = own_file(context, "log")
    Path(context.chroot_path(), "log").mkdir(parents=True)
    with pytest.raises((StockadeError, OSError)):
        place(context, file)
    assert os.listdir(context.chroot_path()) == ["log"], "no temporary name remains"
    context.cleanup()
