"""Jails for new code."""

from __future__ import annotations

import atexit
import contextlib
import os
import warnings
import weakref
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, Dict, List, Optional, Sequence, Type, Union

from . import _stockade
from ._checks import (
    account_of,
    descriptor_of,
    each,
    flag_of,
    number_of,
    path_of,
    printable,
    size_of,
    size_text_of,
    text_of,
)
from ._state import default_state_dir
from .errors import LeftBehind, StockadeWarning
from .vm import StrPath, Vm

__all__ = ["Jail", "Placed"]

Stream = Union[int, IO[Any]]

_LOG_BYTES = 1 << 20


@dataclass(frozen=True)
class Placed:
    """A placement.

    :ivar path: the path in the jail
    :ivar how: the method: ``link``, ``share``, ``copy``, ``reflink``, ``bind`` or ``node``
    """

    path: PurePosixPath
    how: str

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)


class Jail:
    """A jail for one VMM, as a context manager::

        with Jail("vm-1", "/usr/local/bin/firecracker", netns="vm-1") as jail:
            kernel = jail.place("/images/vmlinux")
            vm = jail.launch("--config-file", "/vm.json")
            vm.wait_ready()
            vm.wait(timeout=60)

    The end of the block kills the VMM if it still runs, and removes the jail.

    :param id: the jail's name: 1 to 64 letters, digits and dashes
    :param exec_file: the path of the VMM, which is copied into the jail with its shared libraries
    :param uid: the user that the VMM runs as, and that owns the jail's files: a number, or a name in ``/etc/passwd``
    :param gid: the group that the VMM runs as: a number, or a name in ``/etc/group``
    :param chroot_base: the directory that holds jails
    :param allow_unsafe_base: whether to create the jail even if its user can write to that directory, to the
        executable's directory in it, or to one above
    :param netns: a network namespace: a name, which is created and removed with the jail unless it exists; or the
        path of an existing one to join
    :param new_netns: whether to create a network namespace without a name, which ends with the VMM
    :param new_pid_ns: whether the VMM is the first process of its own pid namespace
    :param cgroups: cgroup settings, such as ``"pids.max=64"`` or ``"memory.max=512M"``
    :param cgroup_version: 1 or 2; by default the version that has the controllers
    :param parent_cgroup: the parent of the jail's cgroup; by default the executable's name
    :param resource_limits: resource limits, ``"no-file=COUNT"`` or ``"fsize=SIZE"``
    :param ramfs: the nominal size of a ramfs on ``/ramfs``: bytes, or a text such as ``"64M"``
    :param profile: the VMM's profile, by name or TOML file; by default chosen by the executable
    :param closure: whether to place the shared libraries of a dynamically linked VMM
    :param bind_executable: whether to bind the host's executable and libraries read-only instead of copying them
    :param arguments: the VMM's arguments, unless :meth:`launch` gets others
    :param state_dir: the directory of the receipt, for ``stockade ps`` and ``stockade gc``; by default
        ``STOCKADE_STATE_DIR`` or ``/var/lib/stockade``
    :raises TypeError: if an argument has a wrong type
    :raises ValueError: if an argument is invalid; :meth:`create` checks the others
    """

    def __init__(
        self,
        id: str,
        exec_file: StrPath,
        *,
        uid: Union[int, str] = 1234,
        gid: Union[int, str] = 1234,
        chroot_base: StrPath = "/srv/jailer",
        allow_unsafe_base: bool = False,
        netns: Optional[str] = None,
        new_netns: bool = False,
        new_pid_ns: bool = False,
        cgroups: Sequence[str] = (),
        cgroup_version: Optional[int] = None,
        parent_cgroup: Optional[str] = None,
        resource_limits: Sequence[str] = (),
        ramfs: Union[int, str, None] = None,
        profile: Optional[StrPath] = None,
        closure: bool = True,
        bind_executable: bool = False,
        arguments: Sequence[StrPath] = (),
        state_dir: Optional[StrPath] = None,
    ) -> None:
        if netns is not None and new_netns:
            raise ValueError("new_netns cannot be given together with netns")
        self._state_dir = path_of("state_dir", default_state_dir() if state_dir is None else state_dir)
        self._id = text_of("id", id)
        self._exec_file = path_of("exec_file", exec_file)
        self._properties: Dict[str, Any] = {
            "chroot_base": path_of("chroot_base", chroot_base),
            "uid": account_of("uid", uid),
            "gid": account_of("gid", gid),
            "allow_unsafe_base": flag_of("allow_unsafe_base", allow_unsafe_base),
            "closure": flag_of("closure", closure),
            "bind_executable": flag_of("bind_executable", bind_executable),
            "new_netns": flag_of("new_netns", new_netns),
            "new_pid_ns": flag_of("new_pid_ns", new_pid_ns),
            "netns": None if netns is None else text_of("netns", netns),
            "cgroups": [text_of("cgroups", setting) for setting in each("cgroups", cgroups)],
            "cgroup_version": None if cgroup_version is None else number_of("cgroup_version", cgroup_version),
            "parent_cgroup": None if parent_cgroup is None else text_of("parent_cgroup", parent_cgroup),
            "resource_limits": [
                text_of("resource_limits", limit) for limit in each("resource_limits", resource_limits)
            ],
            "ramfs": None if ramfs is None else size_text_of("ramfs", ramfs),
            "profile": None if profile is None else os.fspath(path_of("profile", profile)),
            "arguments": [os.fspath(path_of("arguments", value)) for value in each("arguments", arguments)],
        }
        self._created: Optional[_stockade.Created] = None
        self._vm: Optional[Vm] = None
        self._root: Optional[Path] = None
        self._notes: List[str] = []
        # The pid of the owning process.
        self._owner = 0

    def create(self) -> Jail:
        """Creates the jail. The context manager calls this.

        :raises InvalidSpec: if an argument is invalid
        :raises InUse: if the id is in use
        :raises StockadeError: if the jail cannot be created; then no part of it remains
        :raises StockadeWarning: only if a filter of :mod:`warnings` makes warnings exceptions; then no part of it remains

        Each note about the creation is a :class:`StockadeWarning`, for example that the jail has no ``/dev/kvm`` because
        this process may not create it. :attr:`notes` has them too.
        """
        if self._exists():
            raise RuntimeError(f"jail {self._id} already exists")
        self._created = _stockade.create(self._state_dir, self._id, self._exec_file, **self._properties)
        self._root, self._vm = self._created.root(), None
        self._owner = os.getpid()
        ALIVE.add(self)
        self._notes = self._created.notes()
        try:
            for note in self._notes:
                warnings.warn(f"jail {self._id}: {note}", StockadeWarning, stacklevel=2)
        except StockadeWarning:
            self.teardown()
            raise
        return self

    def __enter__(self) -> Jail:
        return self.create()

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        try:
            self.teardown()
        except LeftBehind as left:
            if error is None:
                raise
            # The first exception must propagate.
            warnings.warn(str(left), ResourceWarning, stacklevel=2)

    def __del__(self) -> None:
        if getattr(self, "_owner", 0) == os.getpid() and self._exists():
            with contextlib.suppress(Exception):
                warnings.warn(f"jail {self._id} was not torn down", ResourceWarning, stacklevel=2)
                self.teardown()

    @property
    def id(self) -> str:
        """The jail's name."""
        return self._id

    @property
    def root(self) -> Path:
        """The jail's root on the host."""
        if self._root is None:
            raise RuntimeError(f"jail {self._id} does not exist yet")
        return self._root

    @property
    def notes(self) -> List[str]:
        """What differs from the request: a replaced cgroup, a missing device. Empty before the creation."""
        return list(self._notes)

    @property
    def vm(self) -> Optional[Vm]:
        """The VMM; None before the launch."""
        return self._vm

    def host_path(self, path: StrPath) -> Path:
        """The host's path of a path in the jail."""
        return self.root / os.fspath(path_of("path", path)).lstrip("/")

    def place(
        self,
        source: StrPath,
        name: Optional[StrPath] = None,
        *,
        how: str = "auto",
        read_only: bool = False,
    ) -> Placed:
        """Places a file, directory or device of the host, before or after the launch.

        :param source: the path on the host
        :param name: the path in the jail; by default the source's name in the root
        :param how: the method: ``auto``, ``link``, ``share``, ``copy``, ``reflink``, ``bind`` or ``node``
        :param read_only: whether the jail can only read it
        :raises InvalidSpec: if the source does not exist, or the method is impossible
        """
        named = None if name is None else path_of("name", name)
        source, how = path_of("source", source), text_of("how", how)
        path, way = self._jail().place(source, named, how, flag_of("read_only", read_only))
        return Placed(PurePosixPath(path), way)

    def unplace(self, path: StrPath) -> None:
        """Removes a placement from the jail. The host's file does not change.

        :param path: the path in the jail
        :raises InvalidSpec: if the path is no placement
        """
        self._jail().unplace(path_of("path", path))

    def launch(
        self,
        *arguments: StrPath,
        stdin: Optional[Stream] = None,
        stdout: Optional[Stream] = None,
        stderr: Optional[Stream] = None,
        log_bytes: int = _LOG_BYTES,
    ) -> Vm:
        """Starts the VMM in the jail.

        Without streams a monitor keeps the end of the VMM's output (:meth:`Vm.log`). With any stream, the streams
        that are None are those of this process.

        :param arguments: the VMM's arguments; by default those of the constructor
        :param stdin: a file or a file descriptor
        :param stdout: a file or a file descriptor
        :param stderr: a file or a file descriptor
        :param log_bytes: the maximum size of the log in bytes
        :raises StockadeError: if the VMM cannot be started
        """
        if self._created is None:
            self._jail()
            raise RuntimeError(f"jail {self._id} is already launched")
        log_bytes = size_of("log_bytes", log_bytes)
        streams = [descriptor_of(n, s) for n, s in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr))]
        if arguments:
            self._created.set_arguments([os.fspath(path_of("arguments", value)) for value in arguments])
        if any(stream is not None for stream in streams):
            running = self._take().launch(*streams)
        else:
            running = self._take().launch_monitored(log_bytes)
        self._vm = Vm(self._id, running)
        return self._vm

    def teardown(self) -> None:
        """Kills the VMM if it runs, and removes the jail. A second call does nothing.

        Killed processes have five seconds to exit.

        :raises LeftBehind: if a part of the jail could not be removed; it remains on the receipt for ``stockade gc``
        """
        if self._owner != os.getpid():
            # The jail was never created, or this is a forked copy of its owning process.
            return
        ALIVE.discard(self)
        left = []
        if self._created is not None:
            left = self._take().teardown()
        elif self._vm is not None:
            left = self._vm._teardown()
        if left:
            text = "; ".join(f"{what}: {reason}" for what, reason in left)
            raise LeftBehind(f"jail {self._id} left {printable(text)}")

    def leave(self) -> None:
        """Makes the jail persist, or detaches it if its VMM runs: it is no longer removed with this object."""
        if self._owner == os.getpid():
            ALIVE.discard(self)
            if self._created is not None:
                self._take().persist()
            elif self._vm is not None:
                self._vm._detach()

    def describe(self) -> str:
        """Describes the jail as text: its state, its steps, and the end of the VMM's output."""
        vm = self._vm
        state = "created" if self._created is not None else "removed"
        if vm is not None:
            status = vm._status if vm._is_released else vm.poll()
            state = f"exited, {status}" if status else f"running as pid {vm.pid}"
        lines = [f"jail {self._id} in {self._root}: {state}", *(f"  {step}" for step in self._steps())]
        if vm is not None:
            lines += ["output of the VMM:", *(f"  {line}" for line in vm._log_or_reason().splitlines()[-50:])]
        return "\n".join(lines)

    def _steps(self) -> List[str]:
        return self._jail().steps() if self._exists() else []

    def _exists(self) -> bool:
        return self._created is not None or (self._vm is not None and not self._vm._is_released)

    def _jail(self) -> Union[_stockade.Created, _stockade.Running]:
        if self._created is not None:
            return self._created
        if self._vm is None or self._vm._is_released:
            raise RuntimeError(f"jail {self._id} does not exist")
        return self._vm._running

    def _take(self) -> _stockade.Created:
        created, self._created = self._created, None
        assert created is not None
        return created


# The existing jails, for their removal at the interpreter's exit.
ALIVE: weakref.WeakSet[Jail] = weakref.WeakSet()


@atexit.register
def _teardown_all() -> None:
    for jail in list(ALIVE):
        with contextlib.suppress(Exception):
            jail.teardown()
