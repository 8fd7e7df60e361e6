"""The class of Firecracker's test framework that creates a jail for each microVM, as it is today.

The class has the name that it has in the framework, so that a test suite changes only the import::

    from stockade.firecracker import JailerContext

:class:`stockade.JailerContext` is the class as it was in May 2023.
"""

from __future__ import annotations

import atexit
import os
import warnings
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple, Type

from . import _stockade
from ._checks import path_of, printable, text_of
from ._context import DEFAULT_CHROOT_PATH, DEFAULT_USOCKET_NAME, AdoptedJail, Context, StrPath, unused_name
from ._state import default_state_dir

__all__ = ["DEFAULT_CHROOT_PATH", "DEFAULT_USOCKET_NAME", "JailerContext", "NetNs"]


class NetNs:
    """A network namespace with a name, for :class:`JailerContext`.

    It persists until :meth:`cleanup`. If its process exits without that, ``stockade gc`` removes it.

    :param id: the name
    """

    def __init__(self, id: str) -> None:
        self.id = text_of("id", id)

    @property
    def path(self) -> Path:
        """The host's path of the namespace."""
        return Path("/var/run/netns", self.id)

    def cmd_prefix(self) -> str:
        """Return the prefix of a command that runs in the namespace, with a space at its end."""
        return f"ip netns exec {self.id} "

    def setup(self) -> None:
        """Create the namespace, unless it exists.

        :raises StockadeError: if it cannot be created
        """
        if self.id not in _NAMESPACES:
            options = _stockade.AdoptOptions(netns=self.id)
            state_dir = default_state_dir()
            # A receipt needs a base, which is not created if it exists, as the state directory does.
            namespace = _stockade.adopt(state_dir, unused_name(), state_dir, None, options)
            _NAMESPACES[self.id] = (os.getpid(), namespace)

    def cleanup(self) -> None:
        """Remove the namespace if this process has created it. A second call does nothing."""
        pid, namespace = _NAMESPACES.get(self.id, (0, None))
        if namespace is not None and pid == os.getpid():
            del _NAMESPACES[self.id]
            for what, reason in namespace.teardown():
                text = printable(f"{what}: {reason}; run stockade gc later")
                warnings.warn(text, ResourceWarning, stacklevel=2)

    def __enter__(self) -> NetNs:
        self.setup()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.cleanup()

    def __repr__(self) -> str:
        return f"NetNs({self.id!r})"


class _ChrootBase:
    """The base as a ``pathlib.Path``, regardless of the type of the value that was set."""

    def __get__(self, context: Optional[JailerContext], _: object = None) -> Any:
        return None if context is None else context.__dict__.get("chroot_base")

    def __set__(self, context: JailerContext, base: Any) -> None:
        is_path = isinstance(base, (str, os.PathLike))
        context.__dict__["chroot_base"] = Path(base) if is_path else base


class JailerContext(Context):
    """The jailer configuration of a microVM, with helper functions.

    Every field can be set at any time. A context that has created something persists until :meth:`cleanup`, even if it
    is dropped: the command line built from it may run later. If its process exits without a clean-up, ``stockade gc``
    removes what remains. Two contexts of one jail are the same jail.
    """

    if TYPE_CHECKING:
        chroot_base: Any = None
    else:
        chroot_base = _ChrootBase()

    def __init__(
        self,
        jailer_id: Any,
        exec_file: Any,
        uid: Any = 1234,
        gid: Any = 1234,
        chroot_base: Any = DEFAULT_CHROOT_PATH,
        netns: Any = None,
        daemonize: Any = True,
        new_pid_ns: Any = False,
        cgroups: Any = None,
        resource_limits: Any = None,
        cgroup_ver: Any = None,
        parent_cgroup: Any = None,
        *,
        share: Optional[bool] = None,
        **extra_args: Any,
    ) -> None:
        """Set the fields.

        :param jailer_id: the jail's name
        :param exec_file: the path of the VMM
        :param uid: the user that the VMM runs as
        :param gid: the group that the VMM runs as
        :param chroot_base: the directory that holds jails
        :param netns: the network namespace: an object with ``path``, ``id`` and ``cmd_prefix()``, such as
            :class:`NetNs`; None for that of the caller
        :param daemonize: whether the VMM runs in the background
        :param new_pid_ns: whether the VMM gets a new pid namespace
        :param cgroups: cgroup settings, ``"FILE=VALUE"``; None becomes an empty list
        :param resource_limits: resource limits, ``"no-file=COUNT"`` or ``"fsize=BYTES"``
        :param cgroup_ver: the cgroup version, 1 or 2
        :param parent_cgroup: the parent of the jail's cgroup
        :param share: the value of the field :attr:`share`; with None that of the class
        :param extra_args: further arguments for the VMM: ``--key value``, or ``--key`` for the value None
        :raises AssertionError: if ``jailer_id`` or ``chroot_base`` is None, as in Firecracker's class
        """
        for name, value in (("jailer_id", jailer_id), ("chroot_base", chroot_base)):
            if value is None:
                raise AssertionError(f"{name} must not be None")
        self.jailer_id = jailer_id
        self.exec_file = exec_file
        self.uid = uid
        self.gid = gid
        self.chroot_base = chroot_base
        self.netns = netns
        self.daemonize = daemonize
        self.new_pid_ns = new_pid_ns
        self.extra_args = extra_args
        self.api_socket_name = DEFAULT_USOCKET_NAME
        self.cgroups = [] if cgroups is None else cgroups
        self.resource_limits = resource_limits
        self.cgroup_ver = cgroup_ver
        self.parent_cgroup = parent_cgroup
        self.ramfs_subdir_name = "ramfs"
        if share is not None:
            self.share = share

    def chroot_base_with_id(self) -> Path:
        """Return the jail's directory, ``BASE/EXECUTABLE/ID``."""
        return Path(super().chroot_base_with_id())

    def chroot_path(self) -> Path:
        """Return the host's path of the jail's root."""
        return Path(super().chroot_path())

    def chroot_ramfs_path(self) -> Path:
        """Return the host's path of the ramfs in the jail."""
        return Path(super().chroot_ramfs_path())

    @property
    def pid_file(self) -> Path:
        """The host's path of the file with the VMM's pid."""
        return self.chroot_path() / f"{path_of('exec_file', self.exec_file).name}.pid"

    def jailed_path(
        self,
        file_path: StrPath,
        create: bool = False,
        subdir: StrPath = ".",
        *,
        share: Optional[bool] = None,
    ) -> str:
        """Return the path of a file in the jail. The root and ``subdir`` are created, even without ``create``.

        With ``create`` the file is placed there and replaces an existing one. The placed file belongs to uid:gid. A file
        that is shared becomes a hard link, and the host's file belongs to uid:gid too. A block device becomes a device
        node. Any other file becomes a hard link if it is on the same file system, belongs to uid:gid and has no set-uid
        or set-gid bits and no capabilities, otherwise a copy; the host's file does not change.

        :param file_path: the path on the host
        :param create: whether to place the file
        :param subdir: the directory in the jail, with or without a leading slash
        :param share: whether to share this file; with None the field :attr:`share`
        :raises InvalidSpec: if ``subdir`` leaves the jail, or if it is a socket or named pipe that cannot be shared
        :raises OSError: if the file does not exist or is a directory
        """
        source, policy = path_of("file_path", file_path), self._policy(share)
        name = Path("/") / path_of("subdir", subdir) / source.name
        self._make_root()
        self._current().make_parents(name, *self._owner())
        if create:
            self._place(source, name, policy)
        return str(name)

    def netns_file_path(self) -> Optional[str]:
        """Return the host's path of the network namespace, for the jailer's ``--netns``; None without one."""
        return None if self.netns is None else os.fspath(path_of("netns.path", self._of_netns("path")))

    def netns_cmd_prefix(self) -> str:
        """Return the prefix of a command that runs in the network namespace; empty without one."""
        return "" if self.netns is None else text_of("netns.cmd_prefix()", self._of_netns("cmd_prefix")())

    def setup(self, use_ramdisk: bool = False) -> None:
        """Create the base, and optionally a ramfs of 1 MiB, but no network namespace.

        From now on ``stockade gc`` finds the jail if this process exits without a clean-up.

        :param use_ramdisk: whether to create the ramfs
        :raises StockadeError: if an object cannot be created
        """
        self._set_up(use_ramdisk)

    # The following members are not in Firecracker's class.

    def _of_netns(self, member: str) -> Any:
        if isinstance(self.netns, (str, Path)) or not hasattr(self.netns, member):
            kind = type(self.netns).__name__
            raise TypeError(f"netns must be an object with path, id and cmd_prefix(), or None, not {kind}")
        return getattr(self.netns, member)

    def _remember(self) -> None:
        SET_UP[id(self)] = self

    def _forget(self) -> None:
        SET_UP.pop(id(self), None)

    def _of_others(self, base: str, names: Tuple[str, str]) -> Optional[AdoptedJail]:
        state_dir = default_state_dir()
        for other in alive():
            for one in other._adopted:
                if one.is_for(base, names) and one.state_dir == state_dir:
                    return one
        return None


# The contexts that were set up and not cleaned up. They are kept here after the caller has dropped them.
SET_UP: Dict[int, JailerContext] = {}

# The namespaces that were set up, by their names, with the pids of the processes that own them.
_NAMESPACES: Dict[str, Tuple[int, _stockade.Adopted]] = {}


def alive() -> List[JailerContext]:
    """The contexts of this process that were set up and not cleaned up, without those of forked copies."""
    own = [one for one in SET_UP.values() if one._owning_pid == os.getpid()]
    return [one for one in own if any(jail.exists for jail in one._adopted)]


@atexit.register
def _leave_all() -> None:
    jails = [jail.jail for context in alive() for jail in context._adopted if jail.exists]
    for jail in jails + [namespace for pid, namespace in _NAMESPACES.values() if pid == os.getpid()]:
        with suppress(Exception):
            # A jail of two contexts is left once.
            jail.leave()
