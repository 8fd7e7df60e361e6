"""Shared test code: leak checks, unique names, and the programs under test."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Set, Union

import pytest

from stockade import JailerContext, firecracker

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
UID, GID = 12345, 12346

# The class of May 2023, and that of today.
AnyContext = Union[JailerContext, firecracker.JailerContext]
_COUNT = itertools.count()


def program(name: str) -> Path:
    """The path of a program of the workspace, the one built last."""
    built = sorted(ROOT.glob(f"target/*/debug/{name}"), key=lambda path: path.stat().st_mtime)
    assert built, f"{name} is missing: build it with cargo build --workspace"
    return built[-1]


def cgroup_mounts() -> Dict[str, Path]:
    """The mount points of the cgroup v1 controllers, and of the unified hierarchy as ``unified``."""
    mounts: Dict[str, Path] = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, at, kind, options, *_ = line.split(" ")
        if kind == "cgroup2":
            mounts.setdefault("unified", Path(at))
        elif kind == "cgroup":
            mounts.update({option: Path(at) for option in options.split(",")})
    return mounts


def needs_v1(controller: str) -> Path:
    """The mount point of a cgroup v1 controller; without it the test is skipped."""
    mounts = cgroup_mounts()
    if controller not in mounts:
        pytest.skip(f"needs cgroup v1 with {controller}")
    return mounts[controller]


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def running_probes() -> Set[int]:
    """The running probes and stand-ins, which tests use as VMMs."""
    found = set()
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and Path(f"/proc/{entry}/comm").read_text() in ("stockade-probe\n", "stand-in\n"):
                found.add(int(entry))
        except OSError:
            continue
    return {pid for pid in found if is_running(pid)}


class Guard:
    """A test that changes the host, with a snapshot of the host from its start."""

    def __init__(self) -> None:
        self.name = f"stk{os.getpid()}py{next(_COUNT)}"
        self.directory = Path("/var/tmp") / self.name
        self.base = self.directory / "base"
        self.state = self.directory / "state"
        self.vmm = program("stockade-probe")
        self.jailer = program("jailer")
        self.processes: List["subprocess.Popen[str]"] = []
        self.directory.mkdir()
        self.before = self.snapshot()

    def snapshot(self) -> Set[str]:
        seen = {f"process {pid}" for pid in running_probes()}
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            seen.add("mount " + line.split(" ")[4])
        for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
            seen.add(f"network namespace {name}")
        for mount in set(cgroup_mounts().values()):
            for directory, below, _ in os.walk(mount):
                seen.update(os.path.join(directory, name) for name in below if self.name in name)
        for task in os.listdir("/proc/self/task"):
            listed = Path(f"/proc/self/task/{task}/children").read_text().split()
            seen.update(f"child {pid}" for pid in listed)
        # The first namespace and the first jail after boot create these mounts, which remain.
        return seen - {"mount /run/netns", "mount /run/stockade", "mount /run/stockade/mounts"}

    def named(self, suffix: str) -> str:
        return f"{self.name}-{suffix}"

    def file(self, name: str, content: str = "content\n") -> Path:
        path = self.directory / name
        path.write_text(content)
        return path

    def context(self, suffix: str = "vm", **fields: Any) -> JailerContext:
        fields = {"uid": UID, "gid": GID, "chroot_base": str(self.base), **fields}
        exec_file = fields.pop("exec_file", str(self.vmm))
        return JailerContext(self.named(suffix), exec_file, **fields)

    def today(self, suffix: str = "vm", **fields: Any) -> firecracker.JailerContext:
        """The class of today's framework."""
        fields = {"uid": UID, "gid": GID, "chroot_base": str(self.base), **fields}
        exec_file = fields.pop("exec_file", self.vmm)
        return firecracker.JailerContext(self.named(suffix), exec_file, **fields)

    def start(self, context: AnyContext, *arguments: str) -> int:
        """Starts the jailer, as a test author would, and returns the pid of the VMM or the jailer."""
        parameters = context.construct_param_list()
        separator = [] if "--" in parameters else ["--"]
        command = [str(self.jailer), *parameters, *separator, *(arguments or ["sleep"])]
        if context.daemonize:
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=20)
            return self.pid(context)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process.pid

    def pid(self, context: AnyContext) -> int:
        name = Path(context.exec_file).name
        return int(Path(context.chroot_path(), f"{name}.pid").read_text())

    def stockade(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(program("stockade")), *arguments, "--state-dir", str(self.state)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    def netns(self, name: str) -> bool:
        return os.path.exists(f"/run/netns/{name}")

    def finish(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        for mount in set(cgroup_mounts().values()):
            # By design parent cgroups outlive their jails, but not the test.
            for directory, _, _ in os.walk(mount / self.name, topdown=False):
                os.rmdir(directory)
        # A test that failed may have left these, which would live as long as the interpreter.
        for context in firecracker.alive():
            context.cleanup()
        leaks = self.snapshot() - self.before
        leaks |= {str(path) for path in (self.base, self.state) if path.exists()}
        for leak in leaks:
            if leak.startswith("process "):
                os.kill(int(leak.split()[1]), signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)
        assert not leaks, f"the test leaked: {sorted(leaks)}"


@pytest.fixture(scope="module")
def machine() -> Iterator[None]:
    """Holds the tests' lock of this machine for a module: other tests compare the host too."""
    if os.geteuid() != 0:
        assert os.environ.get("CI") != "true", "CI must run every test, and these need root"
        pytest.skip("needs root")
    with open(Path(tempfile.gettempdir()) / "stockade-tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def guard(machine: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    """Compares the host before and after a test."""
    guard = Guard()
    monkeypatch.setenv("STOCKADE_STATE_DIR", str(guard.state))
    yield guard
    guard.finish()


def owner(path: "os.PathLike[str] | str", follow: bool = False) -> "tuple[int, int]":
    facts = os.stat(path, follow_symlinks=follow)
    return facts.st_uid, facts.st_gid


def ramfs_mounts(under: "os.PathLike[str] | str") -> List[str]:
    lines = Path("/proc/mounts").read_text().splitlines()
    return [line for line in lines if f" {os.fspath(under)}" in line and " ramfs " in line]



def wait_until(condition: Callable[[], object], what: str) -> None:
    """Waits for something that another process does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"{what} does not happen"
        time.sleep(0.002)
