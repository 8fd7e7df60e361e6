"""Jails for new code: made, launched, waited for and removed."""

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
from ._checks import descriptor_of, each, flag_of, number_of, path_of, size_of, text_of
from ._state import default_state_dir
from .errors import LeftBehind
from .vm import StrPath, Vm

__all__ = ["Jail", "Placed"]

Stream = Union[int, IO[Any]]

_LOG_BYTES = 1 << 20

@dataclass(frozen=True)
class Placed:
    """What was placed: where the jail sees it, and which way was taken."""

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

    When the block ends the VMM is killed if it still runs, and the jail is removed.

    :param id: 1 to 64 letters, digits and dashes
    :param exec_file: the VMM; it is copied into the jail, with the libraries that it needs
    :param uid: who the VMM runs as, and owns its files
    :param gid: the group that it runs as
    :param chroot_base: the directory that jails are made in
    :param netns: a network namespace: a name, made and removed with the jail unless it exists; or the path of
        one to join
    :param new_netns: a network namespace without a name, which ends with the VMM
    :param new_pid_ns: the VMM as first process of its own pid namespace
    :param cgroups: settings, such as ``"pids.max=64"``
    :param cgroup_version: 1 or 2; the one that has the controllers unless given
    :param parent_cgroup: the cgroup that the jail's own is made in; the executable's name unless given
    :param resource_limits: limits of the process, ``"no-file=N"`` or ``"fsize=N"``
    :param ramfs: a ramfs on ``/ramfs``, of nominally so many bytes
    :param profile: what is known of the VMM, by name or TOML file; chosen by the executable unless given
    :param closure: whether the libraries of a dynamically linked VMM are placed
    :param bind_executable: whether executable and libraries are the host's own, bound read-only, and not copies
    :param arguments: the VMM's own arguments, unless :meth:`launch` has others
    :param state_dir: where the receipt is kept, for ``stockade ps`` and ``stockade gc``
    """

    def __init__(
        self,
        id: str,
        exec_file: StrPath,
        *,
        uid: int = 1234,
        gid: int = 1234,
        chroot_base: StrPath = "/srv/jailer",
        netns: Optional[str] = None,
        new_netns: bool = False,
        new_pid_ns: bool = False,
        cgroups: Sequence[str] = (),
        cgroup_version: Optional[int] = None,
        parent_cgroup: Optional[str] = None,
        resource_limits: Sequence[str] = (),
        ramfs: Optional[int] = None,
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
            "uid": number_of("uid", uid),
            "gid": number_of("gid", gid),
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
            "ramfs": None if ramfs is None else size_of("ramfs", ramfs),
            "profile": None if profile is None else os.fspath(path_of("profile", profile)),
            "arguments": [os.fspath(path_of("arguments", word)) for word in each("arguments", arguments)],
        }
        self._prepared: Optional[_stockade.Created] = None
        self._vm: Optional[Vm] = None
        self._root: Optional[Path] = None
        self._keeper = 0

    def prepare(self) -> Jail:
        """Makes the jail; the context manager does so by itself."""
        if self._is_there():
            raise RuntimeError(f"jail {self._id} is prepared already")
        self._prepared = _stockade.create(self._state_dir, self._id, self._exec_file, **self._properties)
        self._root, self._vm = self._prepared.root(), None
        self._keeper = os.getpid()
        ALIVE.add(self)
        return self

    def __enter__(self) -> Jail:
        return self.prepare()

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
            # What happened first is what is told.
            warnings.warn(str(left), ResourceWarning, stacklevel=2)

    def __del__(self) -> None:
        if getattr(self, "_keeper", 0) == os.getpid() and self._is_there():
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
            raise RuntimeError(f"jail {self._id} is not prepared yet")
        return self._root

    @property
    def vm(self) -> Optional[Vm]:
        """The VMM, once it was launched."""
        return self._vm

    def host_path(self, path: StrPath) -> Path:
        """Where on the host a path of the jail is."""
        return self.root / os.fspath(path_of("path", path)).lstrip("/")

    def place(
        self,
        source: StrPath,
        name: Optional[StrPath] = None,
        *,
        how: str = "auto",
        read_only: bool = False,
    ) -> Placed:
        """Places a file, directory or device of the host, before the launch or after.

        :param name: where in the jail; the source's own name in the root unless given
        :param how: ``auto``, ``link``, ``copy``, ``reflink``, ``bind`` or ``node``
        :param read_only: for the jail to read only
        """
        named = None if name is None else path_of("name", name)
        source, how = path_of("source", source), text_of("how", how)
        path, way = self._jail().place(source, named, how, flag_of("read_only", read_only))
        return Placed(PurePosixPath(path), way)

    def unplace(self, path: StrPath) -> None:
        """Takes out what was placed; the host's file stays as it is."""
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

        What it writes is kept (:meth:`Vm.log`), the last `log_bytes` of it, unless it is given streams: files
        or descriptors, in the place of this process's own.

        :param arguments: the VMM's, in the place of those that the jail was made with
        """
        if self._prepared is None:
            self._jail()
            raise RuntimeError(f"jail {self._id} is launched already")
        log_bytes = size_of("log_bytes", log_bytes)
        streams = [descriptor_of(n, s) for n, s in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr))]
        if arguments:
            words = [os.fspath(path_of("arguments", word)) for word in arguments]
            self._prepared.set_arguments(words)
        if any(stream is not None for stream in streams):
            running = self._take().launch(*streams)
        else:
            running = self._take().launch_watched(log_bytes)
        self._vm = Vm(self._id, running)
        return self._vm

    def teardown(self) -> None:
        """Kills the VMM if it runs, and removes the jail. Harmless when run again.

        :raises LeftBehind: what could not be removed; it stays on the receipt, for ``stockade gc``
        """
        if self._keeper != os.getpid():
            # A forked copy of the process that made it, or it was never made.
            return
        ALIVE.discard(self)
        left = []
        if self._prepared is not None:
            left = self._take().teardown()
        elif self._vm is not None:
            left = self._vm._teardown()
        if left:
            told = "; ".join(f"{what}: {why}" for what, why in left)
            raise LeftBehind(f"jail {self._id} left {told}")

    def leave(self) -> None:
        """Leaves the jail standing, with its VMM if that runs: it is no longer removed with this object."""
        if self._keeper == os.getpid():
            ALIVE.discard(self)
            if self._prepared is not None:
                self._take().leave()
            elif self._vm is not None:
                self._vm._leave()

    def describe(self) -> str:
        """The jail's state, for a person: its processes, its steps, and the end of what the VMM wrote."""
        vm = self._vm
        state = "created" if self._prepared is not None else "gone"
        if vm is not None:
            ended = vm._ended if vm._is_gone else vm.poll()
            state = f"ended, {ended}" if ended else f"running as pid {vm.pid}"
        lines = [f"jail {self._id} in {self._root}: {state}", *(f"  {step}" for step in self._steps())]
        if vm is not None:
            lines += ["what the VMM wrote:", *(f"  {line}" for line in vm.log().splitlines()[-50:])]
        return "\n".join(lines)

    def _steps(self) -> List[str]:
        return self._jail().steps() if self._is_there() else []

    def _is_there(self) -> bool:
        return self._prepared is not None or (self._vm is not None and not self._vm._is_gone)

    def _jail(self) -> Union[_stockade.Created, _stockade.Running]:
        if self._prepared is not None:
            return self._prepared
        if self._vm is None or self._vm._is_gone:
            raise RuntimeError(f"jail {self._id} is gone, or not prepared yet")
        return self._vm._running

    def _take(self) -> _stockade.Created:
        prepared, self._prepared = self._prepared, None
        assert prepared is not None
        return prepared


# Jails that were prepared and not yet torn down.
ALIVE: weakref.WeakSet[Jail] = weakref.WeakSet()


@atexit.register
def _teardown_all() -> None:
    for jail in list(ALIVE):
        with contextlib.suppress(Exception):
            jail.teardown()
