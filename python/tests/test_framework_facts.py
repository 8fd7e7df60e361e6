"""What Firecracker's test framework does with its class, of May 2023 (A) and of today (B): one test for each fact."""

from __future__ import annotations

import gc
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any, List

import pytest
from conftest import GID, UID, Guard, is_running, needs_v1, owner, program, wait_until

from stockade import InvalidSpec, firecracker

# Vintage A


@pytest.fixture
def standin() -> Path:
    """The VMM of these tests, which takes Firecracker's arguments."""
    return program("stand-in")


def reader(fifo: Path) -> int:
    """The caller's end of a named pipe."""
    return os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)


def read(end: int) -> str:
    try:
        return os.read(end, 65536).decode()
    except BlockingIOError:
        return ""


def test_a_the_caller_reads_the_log_fifo_of_the_vmm(guard: Guard, standin: Path) -> None:
    # The framework makes the pipe outside of the jail.
    fifo = guard.directory / "log_fifo"
    os.mkfifo(fifo)
    context = guard.context(exec_file=str(standin), **{"log-path": "log_fifo", "api-sock": "api.socket"})
    context.setup()
    assert context.jailed_path(fifo, create=True, create_jail=True) == "/log_fifo"
    placed = Path(context.chroot_path(), "log_fifo")
    assert os.path.samefile(fifo, placed) and owner(placed) == owner(fifo) == (UID, GID)
    seen: List[str] = []
    end = reader(fifo)

    def has_message() -> bool:
        seen.append(read(end))
        return "listening" in "".join(seen)

    guard.start(context)
    wait_until(has_message, "a message in the pipe")
    os.close(end)
    context.cleanup()
    assert stat.S_ISFIFO(os.stat(fifo).st_mode), "the caller's pipe remains"


@pytest.mark.parametrize("jailer_id", ["", "a/b", "x" * 65, "under_score", ".", "a/b/c", "é"])
def test_a_the_jailer_refuses_an_id_not_the_class(guard: Guard, jailer_id: str) -> None:
    context = guard.context(exec_file=str(guard.vmm), netns="")
    context.netns = None
    context.jailer_id = jailer_id
    context.setup()
    assert context.jailed_path(context.exec_file, create=True, create_jail=True) == "/stockade-probe"
    placed = Path(context.chroot_path(), "stockade-probe")
    assert placed == Path(os.path.join(guard.base, "stockade-probe", jailer_id, "root", "stockade-probe"))
    assert placed.is_file() and owner(placed) == (UID, GID)
    command = [str(guard.jailer), *context.construct_param_list()]
    assert command[1:3] == ["--id", jailer_id]
    if jailer_id != "é":
        refused = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert refused.returncode == 1 and "Invalid instance ID" in refused.stderr, refused.stderr
    context.cleanup()
    assert not guard.base.exists()


def test_a_default_netns_of_an_invalid_id_is_not_created(guard: Guard) -> None:
    from stockade import JailerContext

    before = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    for jailer_id in ("", "a/b", "../x", "n" * 300):
        context = JailerContext(jailer_id, str(guard.vmm), chroot_base=str(guard.base))
        context.setup()
        assert "--netns" in context.construct_param_list()
        assert before == (set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set())
        context.cleanup()


@pytest.mark.parametrize("uid", [-1, -5, 2**32 - 1, 2**32, 2**70])
def test_a_the_jailer_refuses_a_uid_not_the_class(guard: Guard, uid: int) -> None:
    context = guard.context(uid=uid, gid=uid)
    context.netns = None
    context.setup()
    context.jailed_path(context.exec_file, create=True, create_jail=True)
    context.copy_into_root(str(guard.file("image")))
    assert owner(Path(context.chroot_path(), "stockade-probe")) == (0, 0)
    parameters = context.construct_param_list()
    assert parameters[parameters.index("--uid") + 1] == str(uid)
    refused = subprocess.run([str(guard.jailer), *parameters], capture_output=True, text=True, timeout=20)
    # The jailer accepts the number -1 of the kernel.
    assert uid == 2**32 - 1 or refused.returncode == 1, refused.stderr
    context.cleanup()


def test_a_the_jailer_refuses_a_missing_exec_file(guard: Guard) -> None:
    context = guard.context(exec_file=str(guard.directory / "missing"))
    context.netns = None
    context.setup()
    assert context.jailed_path(context.exec_file, create_jail=True) == "/missing"
    command = [str(guard.jailer), *context.construct_param_list()]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert refused.returncode == 1 and "missing" in refused.stderr
    context.cleanup()
    assert not guard.base.exists()


@pytest.mark.parametrize("jailer_id", ["/etc/stk", "../../etc", "..", "../..", "a/../../..", "x\0y"])
def test_a_an_id_outside_of_the_base_is_refused_by_name(guard: Guard, jailer_id: str) -> None:
    context = guard.context()
    context.netns = None
    context.jailer_id = jailer_id
    assert context.construct_param_list()[:2] == ["--id", jailer_id]
    assert context.chroot_path() == os.path.join(guard.base, "stockade-probe", jailer_id, "root")
    before = set(os.listdir(guard.directory)), set(os.listdir("/etc"))
    for call in (
        lambda: context.jailed_path("/x", create_jail=True),
        lambda: context.jailed_path(context.exec_file, create=True),
        lambda: context.copy_into_root(context.exec_file),
    ):
        with pytest.raises(ValueError, match="^jailer_id must be "):
            call()
    context.cleanup()
    assert (set(os.listdir(guard.directory)), set(os.listdir("/etc"))) == before


def test_a_an_absurd_id_does_not_touch_other_jails(guard: Guard) -> None:
    other = guard.context("other")
    other.setup()
    pid = guard.start(other)
    inside = Path(other.chroot_path(), "outside")
    inside.symlink_to("/etc")
    for jailer_id in (f"{guard.named('other')}/root", f"{guard.named('other')}/root/outside/x", "", "."):
        context = guard.context()
        context.netns, context.jailer_id = None, jailer_id
        try:
            context.setup()
            context.jailed_path(guard.file("image"), create=True, create_jail=True)
        except Exception as error:
            assert guard.named("other") in str(error)
        context.cleanup()
        assert is_running(pid) and inside.is_symlink() and not os.path.exists("/etc/x")
    other.cleanup()


def test_a_gc_removes_the_root_of_an_absurd_id(guard: Guard) -> None:
    import sys

    script = (
        "import sys, os; from stockade import JailerContext; context = JailerContext('', *sys.argv[1:2],"
        " chroot_base=sys.argv[2]); context.jailed_path(sys.argv[1], create=True, create_jail=True);"
        " os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(guard.vmm), str(guard.base)], timeout=30)
    assert (guard.base / "stockade-probe" / "root" / "stockade-probe").exists()
    collected = guard.stockade("gc")
    assert collected.returncode == 0, collected.stderr
    assert not guard.base.exists()


def log_and_metrics(guard: Guard, context: Any, directory: Path) -> None:
    """The caller reads both files while the VMM writes them."""
    context.setup()
    log, metrics = directory / "fc.log", directory / "fc.ndjson"
    directory.mkdir(parents=True, exist_ok=True)
    log.touch()
    metrics.touch()
    context.extra_args.update({"log-path": "/fc.log", "metrics-path": "/fc.ndjson", "api-sock": "api.socket"})
    for file in (log, metrics):
        # Today's class has neither the argument nor the need.
        create_jail = [] if isinstance(context, firecracker.JailerContext) else [True]
        assert context.jailed_path(file, True, *create_jail) == f"/{file.name}"
        assert os.path.samefile(file, Path(context.chroot_path(), file.name))
        assert owner(file) == (UID, GID)
    guard.start(context)
    wait_until(lambda: "listening" in log.read_text(), "a message in the log")
    wait_until(lambda: '"requests":0' in metrics.read_text(), "a line of metrics")


def test_a_the_caller_reads_the_log_and_metrics_files(guard: Guard, standin: Path) -> None:
    context = guard.context(exec_file=str(standin))
    log_and_metrics(guard, context, Path(context.chroot_base_with_id()))
    context.cleanup()
    assert not guard.base.exists()


def test_a_files_elsewhere_are_shared_if_the_policy_says_so(guard: Guard, standin: Path) -> None:
    context = guard.context(exec_file=str(standin), share=True)
    log_and_metrics(guard, context, guard.directory / "session")
    context.cleanup()
    assert (guard.directory / "session" / "fc.log").exists()


def test_a_parameters_paths_netns_and_cleanup_twice(guard: Guard) -> None:
    context = guard.context()
    context.setup()
    parameters = context.construct_param_list()
    assert parameters[:2] == ["--id", guard.named("vm")]
    assert f"/var/run/netns/{guard.named('vm')}" in parameters and guard.netns(guard.named("vm"))
    assert context.chroot_path() == f"{guard.base}/stockade-probe/{guard.named('vm')}/root"
    context.cleanup()
    context.cleanup()
    del context
    assert not guard.base.exists() and not guard.netns(guard.named("vm"))


# Vintage B


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("subdir", [".", "drives", "drives/deep", Path("drives"), "/drives"])
def test_b_a_path_is_in_a_subdir_whose_parents_exist(guard: Guard, create: bool, subdir: Any) -> None:
    context, image = guard.today(), guard.file("image")
    context.setup()
    below = str(subdir).strip("./")
    inside = context.jailed_path(image, create, subdir)
    assert inside == str(Path("/", below, "image"))
    assert (context.chroot_path() / below).is_dir()
    assert (context.chroot_path() / below / "image").exists() == create
    context.cleanup()


def test_b_a_subdir_that_leaves_the_jail_is_refused(guard: Guard) -> None:
    context = guard.today()
    with pytest.raises(InvalidSpec, match="subdir"):
        context.jailed_path(guard.file("image"), subdir="../..")
    context.cleanup()


def test_b_there_is_no_create_jail(guard: Guard) -> None:
    with pytest.raises(TypeError, match="create_jail"):
        guard.today().jailed_path("/x", create_jail=True)  # type: ignore[call-arg]


def test_b_a_file_of_the_jails_directory_is_linked_and_replaced(guard: Guard) -> None:
    context = guard.today()
    context.setup()
    context.chroot_base_with_id().mkdir(parents=True)
    for content in ("old", "new"):
        file = context.chroot_base_with_id() / "file"
        file.unlink(missing_ok=True)
        file.write_text(content)
        context.jailed_path(file, create=True)
        placed = context.chroot_path() / "file"
        assert placed.samefile(file) and placed.read_text() == content and owner(placed) == (UID, GID)
    context.cleanup()


@pytest.mark.parametrize("share", [None, True, False])
def test_b_a_file_that_others_use_is_linked_if_shared(guard: Guard, share: Any) -> None:
    context, image = guard.today(share=share), guard.file("image")
    context.jailed_path(image, create=True)
    placed = context.chroot_path() / "image"
    assert owner(placed) == (UID, GID) and placed.read_text() == "content\n"
    assert placed.samefile(image) == (share is True)
    assert owner(image) == ((UID, GID) if share else (0, 0))
    context.cleanup()


def test_b_a_block_device_becomes_a_node(guard: Guard) -> None:
    context, device = guard.today(), guard.directory / "disk"
    os.mknod(device, stat.S_IFBLK | 0o660, os.makedev(7, 250))
    for _ in range(2):
        assert context.jailed_path(device, create=True, subdir="drives") == "/drives/disk"
    facts = os.lstat(context.chroot_path() / "drives" / "disk")
    assert stat.S_ISBLK(facts.st_mode) and facts.st_rdev == os.makedev(7, 250)
    assert (facts.st_uid, facts.st_gid) == (UID, GID) and owner(device) == (0, 0)
    context.cleanup()


def test_b_a_file_of_another_filesystem_is_copied(guard: Guard) -> None:
    context, elsewhere = guard.today(share=True), Path("/dev/shm") / guard.name
    elsewhere.write_text("from afar")
    try:
        context.jailed_path(elsewhere, create=True)
        placed = context.chroot_path() / guard.name
        assert placed.read_text() == "from afar" and owner(placed) == (UID, GID)
        assert owner(elsewhere) == (0, 0)
        context.cleanup()
    finally:
        elsewhere.unlink()


@pytest.mark.parametrize("base", ["/srv/jailer", Path("/srv/jailer")])
def test_b_paths_are_pathlibs(base: Any) -> None:
    context = firecracker.JailerContext("vm", "/bin/fc", chroot_base=base)
    assert context.chroot_base == Path("/srv/jailer") and isinstance(context.chroot_base, Path)
    assert context.chroot_base_with_id() == Path("/srv/jailer/fc/vm")
    assert context.chroot_path() / "x" == Path("/srv/jailer/fc/vm/root/x")
    assert not context.chroot_path().exists()
    context.chroot_base = "/elsewhere"
    assert context.chroot_base / "x" == Path("/elsewhere/x")
    assert "/elsewhere" in context.construct_param_list()


@pytest.mark.parametrize("field", ["jailer_id", "chroot_base"])
def test_b_id_and_base_are_never_none(field: str) -> None:
    fields: Any = {"jailer_id": "vm", "exec_file": "/bin/fc", "chroot_base": "/b", field: None}
    with pytest.raises(AssertionError, match=f"^{field} must not be None$"):
        firecracker.JailerContext(**fields)


class TheirNetns:
    """An object of the shape that the framework's has."""

    def __init__(self, id: str) -> None:
        self.id = id

    @property
    def path(self) -> Path:
        return Path("/var/run/netns") / self.id

    def cmd_prefix(self) -> str:
        return f"ip netns exec {self.id}"


@pytest.mark.parametrize("kind", [TheirNetns, firecracker.NetNs])
def test_b_netns_is_an_object(guard: Guard, kind: Any) -> None:
    name = guard.named("net")
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        context = guard.today(netns=kind(name))
        context.setup()
        parameters = context.construct_param_list()
        assert parameters[parameters.index("--netns") + 1] == f"/var/run/netns/{name}"
        pid = guard.start(context)
        inside = os.stat(f"/proc/{pid}/ns/net")
        command = f"{context.netns.cmd_prefix()} readlink /proc/self/ns/net"
        seen = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
        assert str(inside.st_ino) in seen
        assert context.netns_file_path() == f"/var/run/netns/{name}"
        assert context.netns_cmd_prefix().split() == ["ip", "netns", "exec", name]
        context.cleanup()
        assert guard.netns(name), "it belongs to its creator"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_b_netns_none_means_none(guard: Guard) -> None:
    context = guard.today()
    before = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    context.setup()
    assert context.netns is None and "--netns" not in context.construct_param_list()
    assert context.netns_file_path() is None and context.netns_cmd_prefix() == ""
    pid = guard.start(context)
    assert os.path.samefile(f"/proc/{pid}/ns/net", "/proc/self/ns/net")
    assert before == (set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set())
    context.cleanup()


@pytest.mark.parametrize("netns", ["name", 5, Path("/run/netns/x"), object()])
def test_b_a_netns_of_another_shape_is_refused(netns: Any) -> None:
    context = firecracker.JailerContext("vm", "/bin/fc", netns=netns)
    with pytest.raises(TypeError, match="^netns must be an object with path, id"):
        context.construct_param_list()


def test_b_cgroups_are_an_empty_list_by_default(guard: Guard) -> None:
    context = guard.today()
    assert len(context.cgroups) == 0 and "--cgroup" not in context.construct_param_list()
    context.cgroups.append("pids.max=9")
    assert guard.today().cgroups == [], "each context has a list of its own"


@pytest.mark.parametrize("options", [{}, {"new_pid_ns": True}, {"daemonize": False, "new_pid_ns": True}])
def test_b_the_pid_file_has_the_vmms_pid(guard: Guard, options: Any) -> None:
    context = guard.today(**options)
    context.setup()
    assert context.pid_file == context.chroot_path() / "stockade-probe.pid"
    guard.start(context)
    wait_until(lambda: context.pid_file.exists() and context.pid_file.read_text(), "the pid file")
    pid = int(context.pid_file.read_text())
    assert is_running(pid)
    context.cleanup()
    assert not is_running(pid)


def test_b_setup_makes_the_base_directory_only(guard: Guard) -> None:
    context = guard.today(netns=firecracker.NetNs(guard.named("net")))
    context.setup()
    assert context.chroot_base.is_dir() and not context.chroot_base_with_id().exists()
    assert not guard.netns(guard.named("net")) and context.uses_ramfs is False
    context.cleanup()
    assert not guard.base.exists()


def test_b_a_dropped_context_keeps_namespace_and_tree(guard: Guard) -> None:
    netns = firecracker.NetNs(guard.named("net"))
    netns.setup()
    context = guard.today(netns=netns, daemonize=True)
    context.setup()
    context.jailed_path(guard.file("image"), create=True)
    command: List[str] = [str(guard.jailer), *context.construct_param_list(), "--", "sleep"]
    pid_file, root = context.pid_file, context.chroot_path()
    del context, netns
    gc.collect()
    assert (root / "image").exists() and guard.netns(guard.named("net"))
    subprocess.run(command, check=True, timeout=20)
    assert is_running(int(pid_file.read_text()))
    # Another context of the same jail cleans up.
    guard.today().cleanup()
    assert not root.exists()
    firecracker.NetNs(guard.named("net")).cleanup()
    assert not guard.netns(guard.named("net"))


def test_b_the_command_line_runs_after_the_interpreter(guard: Guard) -> None:
    import sys

    script = (
        "import sys; from stockade.firecracker import JailerContext\n"
        "context = JailerContext(*sys.argv[1:3], chroot_base=sys.argv[3])\n"
        "context.setup(); context.jailed_path(sys.argv[2], create=True, subdir='d')\n"
        "print('\\n'.join(context.construct_param_list()))"
    )
    arguments = [guard.named("vm"), str(guard.vmm), str(guard.base)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    root = guard.base / "stockade-probe" / guard.named("vm") / "root"
    assert (root / "d" / "stockade-probe").exists(), "the exit of the interpreter removes nothing"
    subprocess.run([str(guard.jailer), *done.stdout.split(), "--", "sleep"], check=True, timeout=20)
    pid = int((root / "stockade-probe.pid").read_text())
    assert is_running(pid)
    # No context is left, so this is the task of gc.
    collected = guard.stockade("gc")
    assert collected.returncode == 0, collected.stderr
    assert not is_running(pid) and not guard.base.exists()


def test_b_cleanup_by_the_owner_removes_everything(guard: Guard) -> None:
    pids = needs_v1("pids")
    fields: Any = {"parent_cgroup": guard.name, "cgroup_ver": 1, "new_pid_ns": True, "no-api": None}
    context = guard.today(cgroups=["pids.max=50"], resource_limits=["no-file=1024"], **fields)
    context.setup()
    pid = guard.start(context)
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert "1024" in next(line for line in limits.splitlines() if "open files" in line)
    assert (pids / guard.name / guard.named("vm")).is_dir()
    context.cleanup()
    context.cleanup()
    assert not is_running(pid) and not (pids / guard.name / guard.named("vm")).exists()
    assert not guard.base.exists()


def test_b_the_members_of_the_older_class_remain(guard: Guard) -> None:
    context, image = guard.today(), guard.file("image")
    context.setup(use_ramdisk=True)
    assert context.uses_ramfs and context.chroot_ramfs_path() == context.chroot_path() / "ramfs"
    context.copy_into_root(str(image))
    assert (context.chroot_path() / str(image).lstrip("/")).read_text() == "content\n"
    context.cleanup()


# Both


@pytest.mark.parametrize("vintage", ["context", "today"])
@pytest.mark.parametrize("kind", ["named pipe", "socket"])
def test_copy_into_root_says_what_cannot_be_copied(guard: Guard, vintage: str, kind: str) -> None:
    context, path = getattr(guard, vintage)(), guard.directory / "special"
    with socket.socket(socket.AF_UNIX) as listener:
        os.mkfifo(path) if kind == "named pipe" else listener.bind(str(path))
        with pytest.raises(InvalidSpec, match=f"^file_path: '{path}' is a {kind}, which cannot be copied"):
            context.copy_into_root(str(path))
    context.cleanup()
