"""The class of Firecracker's test framework that creates a jail for each microVM, as it was in May 2023.

:mod:`stockade.firecracker` has the class of today.
"""

from __future__ import annotations

import atexit
import os
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional, Set, Tuple

from . import _stockade
from ._checks import path_of, text_of
from ._context import DEFAULT_CHROOT_PATH, DEFAULT_USOCKET_NAME, Context, StrPath

__all__ = ["DEFAULT_CHROOT_PATH", "DEFAULT_USOCKET_NAME", "JailerContext"]

_NETNS_DIRECTORY = "/var/run/netns"


class JailerContext(Context):
    """The jailer configuration of a microVM, with helper functions.

    Every field can be set at any time, also to None. :meth:`cleanup` removes everything that was created, regardless of
    the current fields.
    """

    # The network namespaces that existed before the set-up, which cleanup must not remove.
    _foreign_netns: Optional[Set[str]] = None
    _not_copied: Tuple[str, ...] = (*Context._not_copied, "_foreign_netns")

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
        :param netns: the name of the network namespace; by default the jail's name
        :param daemonize: whether the VMM runs in the background
        :param new_pid_ns: whether the VMM gets a new pid namespace
        :param cgroups: cgroup settings, ``"FILE=VALUE"``
        :param resource_limits: resource limits, ``"no-file=COUNT"`` or ``"fsize=BYTES"``
        :param cgroup_ver: the cgroup version, 1 or 2
        :param parent_cgroup: the parent of the jail's cgroup
        :param share: the value of the field :attr:`share`; with None that of the class
        :param extra_args: further arguments for the VMM: ``--key value``, or ``--key`` for the value None
        """
        self.jailer_id = jailer_id
        self.exec_file = exec_file
        self.uid = uid
        self.gid = gid
        self.chroot_base = chroot_base
        self.netns = netns if netns is not None else jailer_id
        self.daemonize = daemonize
        self.new_pid_ns = new_pid_ns
        self.extra_args = extra_args
        self.api_socket_name = DEFAULT_USOCKET_NAME
        self.cgroups = cgroups
        self.resource_limits = resource_limits
        self.cgroup_ver = cgroup_ver
        self.parent_cgroup = parent_cgroup
        self.ramfs_subdir_name = "ramfs"
        if share is not None:
            self.share = share

    def __del__(self) -> None:
        """Clean up this context."""
        # A destructor cannot report errors, and at the interpreter's exit modules may be missing. The receipt
        # then remains for `stockade gc`.
        with suppress(Exception):
            self.cleanup()

    def chroot_base_with_id(self) -> str:
        """Return the jail's directory, ``BASE/EXECUTABLE/ID``."""
        return str(super().chroot_base_with_id())

    def chroot_path(self) -> str:
        """Return the host's path of the jail's root."""
        return str(super().chroot_path())

    def chroot_ramfs_path(self) -> str:
        """Return the host's path of the ramfs in the jail."""
        return str(super().chroot_ramfs_path())

    def jailed_path(
        self,
        file_path: StrPath,
        create: bool = False,
        create_jail: bool = False,
        *,
        share: Optional[bool] = None,
    ) -> str:
        """Return the path of a file in the jail.

        With ``create`` the file is placed there and replaces an existing one. The placed file belongs to uid:gid. A file
        that is shared becomes a hard link, and the host's file belongs to uid:gid too. A block device becomes a device
        node. Any other file becomes a hard link if it is on the same file system, belongs to uid:gid and has no set-uid
        or set-gid bits and no capabilities, otherwise a copy; the host's file does not change.

        :param file_path: the path on the host
        :param create: whether to place the file
        :param create_jail: whether to create the jail's root
        :param share: whether to share this file; with None the field :attr:`share`
        :raises InvalidSpec: if it is a socket or named pipe that cannot be shared
        :raises OSError: if the file does not exist or is a directory
        """
        source, policy = path_of("file_path", file_path), self._policy(share)
        if create_jail:
            self._make_root()
        if create:
            self._place(source, source.name, policy)
        return str(Path("/") / source.name)

    def netns_file_path(self) -> Optional[str]:
        """Return the host's path of the network namespace, for the jailer's ``--netns``; None without a name."""
        return f"{_NETNS_DIRECTORY}/{self.netns}" if self.netns else None

    def netns_cmd_prefix(self) -> str:
        """Return the prefix of a command that runs in the network namespace; empty without a name."""
        return f"ip netns exec {self.netns} " if self.netns else ""

    def setup(self, use_ramdisk: bool = False) -> None:
        """Create the base, the network namespace, and optionally a ramfs of 1 MiB.

        From now on ``stockade gc`` finds the jail if this process cannot clean up. No namespace is created for a
        jailer_id that cannot be the name of one, if it is the namespace's name too.

        :param use_ramdisk: whether to create the ramfs
        :raises StockadeError: if an object cannot be created
        """
        if self._foreign_netns is None:
            self._foreign_netns = _netns_names()
        netns = text_of("netns", self.netns) if self.netns else None
        if netns == self.jailer_id and not _can_be_netns(netns):
            netns = None
        self._set_up(use_ramdisk, netns)

    # The following members are not in Firecracker's class.

    def _remember(self) -> None:
        ALIVE.add(self)

    def _forget(self) -> None:
        self._foreign_netns = None
        ALIVE.discard(self)

    def _adopt_later(self, jail: _stockade.Adopted) -> None:
        if self.netns and self._foreign_netns is not None:
            created_since = _netns_names() - self._foreign_netns
            if self.netns in created_since:
                jail.expect_netns(self.netns)


# The contexts to clean up at the interpreter's exit.
ALIVE: weakref.WeakSet[JailerContext] = weakref.WeakSet()


@atexit.register
def _cleanup_all() -> None:
    for context in list(ALIVE):
        with suppress(Exception):
            context.cleanup()


def _netns_names() -> Set[str]:
    try:
        return set(os.listdir(_NETNS_DIRECTORY))
    except FileNotFoundError:
        return set()


def _can_be_netns(name: Optional[str]) -> bool:
    return bool(name) and len(os.fsencode(str(name))) <= 255 and not str(name).startswith(".") and "/" not in str(name)
