"""The class of Firecracker's test framework that creates a jail for each microVM."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import secrets
import stat
import warnings
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Set, Tuple, Union

from . import _stockade
from ._checks import each, is_component, number_of, path_of, text_of
from ._state import default_state_dir
from .errors import InUse, StockadeError

# Default name for the socket used for API calls.
DEFAULT_USOCKET_NAME = "run/firecracker.socket"

# The default location for the chroot.
DEFAULT_CHROOT_PATH = "/srv/jailer"

_NETNS_DIRECTORY = "/var/run/netns"

_StrPath = Union[str, "os.PathLike[str]"]


class _ApiSocketName:
    """The name of the API socket: the VMM's argument, otherwise the value of the field.

    The value does not depend on whether the parameter list was built before.
    """

    def __get__(self, context: Optional[JailerContext], _: object = None) -> Any:
        if context is None:
            return None
        argument = (context.extra_args or {}).get("api-sock")
        return context.__dict__.get("api_socket_name") if argument is None else argument

    def __set__(self, context: JailerContext, name: Any) -> None:
        context.__dict__["api_socket_name"] = name


@dataclass
class _Adopted:
    """An adopted jail, with the values that the fields had.

    ``names`` are those of the executable and the jail, ``written`` the cgroups on the receipt.
    """

    jail: _stockade.Adopted
    base: str
    names: Optional[Tuple[str, str]]
    written: Tuple[List[str], Optional[str]]


class JailerContext:
    """The jailer configuration of a microVM, with helper functions.

    Every field can be set at any time, also to None. :meth:`cleanup` removes everything that was created, regardless of
    the current fields.
    """

    # In the order of the jailer's parameters.
    jailer_id: Any = None
    exec_file: Any = None
    uid: Any = None
    gid: Any = None
    chroot_base: Any = None
    netns: Any = None
    daemonize: Any = None
    new_pid_ns: Any = None
    extra_args: Any = None
    if TYPE_CHECKING:
        api_socket_name: Any = None
    else:
        api_socket_name = _ApiSocketName()
    cgroups: Any = None
    resource_limits: Any = None
    cgroup_ver: Any = None
    parent_cgroup: Any = None
    ramfs_subdir_name: Any = "ramfs"

    _uses_ramfs = False
    # The jails that this context adopted, and the pid of the owning process.
    _adopted: Tuple[_Adopted, ...] = ()
    _owning_pid = 0
    # The network namespaces that existed before the set-up, which cleanup must not remove.
    _foreign_netns: Optional[Set[str]] = None

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

    def __del__(self) -> None:
        """Clean up this context."""
        # A destructor cannot report errors, and at the interpreter's exit modules may be missing. The receipt
        # then remains for `stockade gc`.
        with contextlib.suppress(Exception):
            self.cleanup()

    def __getstate__(self) -> Dict[str, Any]:
        """A copy has the fields, but does not own the created jails."""
        own = ("_adopted", "_owning_pid", "_foreign_netns", "_uses_ramfs")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def construct_param_list(self) -> List[str]:
        """Return the jailer's arguments for the current fields.

        A field that is None adds no argument, even if the jailer requires it, so that tests can check the refusal.

        :raises TypeError: if ``cgroups`` or ``resource_limits`` is no list
        """
        # On the receipt before the jailer can create anything.
        self._update_receipt()
        parameters: List[str] = []
        # The same order as in Firecracker's class.
        if self.jailer_id is not None:
            parameters += ["--id", str(self.jailer_id)]
        if self.exec_file is not None:
            parameters += ["--exec-file", str(self.exec_file)]
        if self.uid is not None:
            parameters += ["--uid", str(self.uid)]
        if self.gid is not None:
            parameters += ["--gid", str(self.gid)]
        if self.chroot_base is not None:
            parameters += ["--chroot-base-dir", str(self.chroot_base)]
        if self.netns is not None:
            parameters += ["--netns", str(self.netns_file_path())]
        if self.daemonize:
            parameters.append("--daemonize")
        if self.new_pid_ns:
            parameters.append("--new-pid-ns")
        if self.parent_cgroup:
            parameters += ["--parent-cgroup", str(self.parent_cgroup)]
        if self.cgroup_ver:
            parameters += ["--cgroup-version", str(self.cgroup_ver)]
        for cgroup in each("cgroups", self.cgroups):
            parameters += ["--cgroup", str(cgroup)]
        for limit in each("resource_limits", self.resource_limits):
            parameters += ["--resource-limit", str(limit)]
        if self.extra_args:
            parameters.append("--")
            for key, value in self.extra_args.items():
                parameters.append(f"--{key}")
                if value is not None:
                    parameters.append(value)
        return parameters

    def chroot_base_with_id(self) -> str:
        """Return the jail's directory, ``BASE/EXECUTABLE/ID``."""
        return os.path.join(
            self._base(), path_of("exec_file", self.exec_file).name, text_of("jailer_id", self.jailer_id)
        )

    def api_socket_path(self) -> str:
        """Return the host's path of the API socket."""
        # The VMM's root is the jail's, so a socket at an absolute path is in the jail too.
        name = os.fspath(path_of("api_socket_name", self.api_socket_name))
        return os.path.join(self.chroot_path(), name.lstrip(os.path.sep))

    def chroot_path(self) -> str:
        """Return the host's path of the jail's root."""
        return os.path.join(self.chroot_base_with_id(), "root")

    def chroot_ramfs_path(self) -> str:
        """Return the host's path of the ramfs in the jail."""
        return os.path.join(self.chroot_path(), text_of("ramfs_subdir_name", self.ramfs_subdir_name))

    @property
    def uses_ramfs(self) -> bool:
        """Whether :meth:`setup` created a ramfs."""
        return self._uses_ramfs

    def jailed_path(self, file_path: _StrPath, create: bool = False, create_jail: bool = False) -> str:
        """Return the path of a file in the jail.

        With ``create`` the file is placed there and replaces an existing one. A block device becomes a device node. A
        file becomes a hard link if it is on the same file system, belongs to uid:gid and has no set-uid or set-gid bits
        and no capabilities. Other files are copied. The placed file belongs to uid:gid, and the host's file does not
        change.

        :param file_path: the path on the host
        :param create: whether to place the file
        :param create_jail: whether to create the jail's root
        :raises OSError: if the file does not exist or is a directory
        """
        source = path_of("file_path", file_path)
        if create_jail:
            self._ensure_names()
            self._current().make_root()
        if create:
            self._ensure_names()
            uid, gid = self._owner()
            _ensure_file(source)
            os.stat(self.chroot_path())
            self._current().place(source, source.name, False, uid, gid)
        return str(Path("/") / source.name)

    def copy_into_root(self, file_path: _StrPath, create_jail: bool = False) -> None:
        """Copy a file into the jail, owned by uid:gid.

        The copy has the same path as on the host. Missing directories, the root among them, are created.

        :param file_path: the path on the host
        :param create_jail: without effect, since the root is always created
        :raises OSError: if the file does not exist or is a directory
        """
        self._ensure_names()
        uid, gid = self._owner()
        source = path_of("file_path", file_path)
        _ensure_file(source)
        adopted = self._current()
        # Regardless of create_jail, as in Firecracker's class.
        adopted.make_root()
        adopted.place(source, os.fspath(source).strip(os.path.sep), True, uid, gid)

    def netns_file_path(self) -> Optional[str]:
        """Return the host's path of the network namespace, for the jailer's ``--netns``; None without a name."""
        return f"{_NETNS_DIRECTORY}/{self.netns}" if self.netns else None

    def netns_cmd_prefix(self) -> str:
        """Return the prefix of a command that runs in the network namespace; empty without a name."""
        return f"ip netns exec {self.netns} " if self.netns else ""

    def setup(self, use_ramdisk: bool = False) -> None:
        """Create the base, the network namespace, and optionally a ramfs of 1 MiB.

        From now on ``stockade gc`` finds the jail if this process cannot clean up.

        :param use_ramdisk: whether to create the ramfs
        :raises StockadeError: if an object cannot be created
        """
        if self._foreign_netns is None:
            self._foreign_netns = _netns_names()
        netns = text_of("netns", self.netns) if self.netns else None
        ramfs = None
        if use_ramdisk:
            self.chroot_ramfs_path()
            ramfs = (self.ramfs_subdir_name, f"ramfs-{self.jailer_id}", 1 << 20, *self._owner())
        self._current(netns=netns, ramfs=ramfs)
        self._expect_resolved()
        self._uses_ramfs = self._uses_ramfs or use_ramdisk

    def cleanup(self) -> None:
        """Kill all processes of the jail, and remove everything that this context or the jailer created for it.

        This covers the values that the fields had at the set-up, and the current ones. A second call does nothing.
        Killed processes have five seconds to exit.
        Objects that cannot be removed remain on the receipt for ``stockade gc``, with a ``ResourceWarning``.
        """
        if self._adopted and self._owning_pid != os.getpid():
            # A forked copy of the owning process.
            return
        try:
            self._adopt_existing()
        finally:
            adopted, self._adopted = self._adopted, ()
            self._foreign_netns = None
            ALIVE.discard(self)
            for one in reversed(adopted):
                for what, reason in one.jail.teardown():
                    warnings.warn(f"{what}: {reason}; run stockade gc later", ResourceWarning, stacklevel=2)

    # The following members are not in Firecracker's class.

    def _base(self) -> str:
        base = self.chroot_base
        return DEFAULT_CHROOT_PATH if base is None else os.fspath(path_of("chroot_base", base))

    def _owner(self) -> Tuple[int, int]:
        return number_of("uid", self.uid), number_of("gid", self.gid)

    def _names(self) -> Optional[Tuple[str, str]]:
        """The names of the executable and the jail, if both fields are set."""
        if not self.jailer_id or self.exec_file is None:
            return None
        names = path_of("exec_file", self.exec_file).name, text_of("jailer_id", self.jailer_id)
        # With other names the jailer creates nothing.
        return names if all(is_component(name) for name in names) else None

    def _ensure_names(self) -> None:
        self.chroot_base_with_id()
        if self._names() is None:
            raise ValueError(f"jailer_id must be the name of a directory, not {self.jailer_id!r}")

    def _cgroups(self) -> Tuple[List[str], Optional[str]]:
        settings = [str(setting) for setting in each("cgroups", self.cgroups)]
        return settings, str(self.parent_cgroup) if self.parent_cgroup else None

    def _current(self, netns: Optional[str] = None, ramfs: Any = None) -> _stockade.Adopted:
        """The adopted jail of the current fields, with their options on its receipt."""
        found = self._find()
        if found is None:
            try:
                return self._adopt(self._receipt_name(), netns, ramfs)
            except InUse:
                # A jail with the same id elsewhere, or another context of this jail.
                return self._adopt(_unused_name(), netns, ramfs)
        cgroups = self._cgroups()
        if cgroups != found.written or netns is not None or ramfs is not None:
            found.jail.want(_options(cgroups, netns, ramfs))
            found.written = cgroups
        return found.jail

    def _receipt_name(self) -> str:
        is_id = isinstance(self.jailer_id, str) and _stockade.is_jail_id(self.jailer_id)
        return self.jailer_id if is_id else _unused_name()

    def _find(self) -> Optional[_Adopted]:
        names = self._names()
        if not self._adopted or names is None:
            return self._adopted[-1] if self._adopted else None
        base = self._base()
        return next((one for one in self._adopted if (one.base, one.names) == (base, names)), None)

    def _resolved_names(self) -> Optional[Tuple[str, str]]:
        """The names that the jailer uses, if they differ: it resolves symbolic links to the executable."""
        names = self._names()
        resolved = os.path.basename(os.path.realpath(self.exec_file)) if names else ""
        return (resolved, names[1]) if names and is_component(resolved) and resolved != names[0] else None

    def _expect_resolved(self) -> None:
        base, names = self._base(), self._resolved_names()
        if names and not any((one.base, one.names) == (base, names) for one in self._adopted):
            self._adopt(_unused_name(), names=names)

    def _adopt(
        self,
        name: str,
        netns: Optional[str] = None,
        ramfs: Any = None,
        names: Optional[Tuple[str, str]] = None,
    ) -> _stockade.Adopted:
        base, names, cgroups = self._base(), names or self._names(), self._cgroups()
        jail = _stockade.adopt(default_state_dir(), name, base, names, _options(cgroups, netns, ramfs))
        self._adopted += (_Adopted(jail, base, names, cgroups),)
        self._owning_pid = os.getpid()
        ALIVE.add(self)
        return jail

    def _update_receipt(self) -> None:
        """Writes the objects that the jailer may create for the current fields to the receipt, after a set-up."""
        if self._adopted and self._owning_pid == os.getpid():
            with contextlib.suppress(StockadeError, TypeError, ValueError):
                # Errors are ignored: tests may use invalid parameters, and the jailer then creates nothing.
                self._current()
                self._expect_resolved()

    def _adopt_existing(self) -> None:
        """Adopts the objects of the current fields that this context did not set up, so that they are removed too."""
        with contextlib.suppress(StockadeError, TypeError, ValueError):
            if self._adopted:
                jail = self._current()
                if self.netns and self._foreign_netns is not None:
                    created_since = _netns_names() - self._foreign_netns
                    if self.netns in created_since:
                        jail.expect_netns(self.netns)
                self._expect_resolved()
            elif self._names() and self._may_exist():
                # InUse is ignored: another context cleans up the jail.
                self._adopt(self._receipt_name())
                self._expect_resolved()

    def _may_exist(self) -> bool:
        both = [names for names in (self._names(), self._resolved_names()) if names]
        return bool(self.cgroups) or any(os.path.lexists(os.path.join(self._base(), *names)) for names in both)


# The contexts to clean up at the interpreter's exit.
ALIVE: weakref.WeakSet[JailerContext] = weakref.WeakSet()


@atexit.register
def _cleanup_all() -> None:
    for context in list(ALIVE):
        with contextlib.suppress(Exception):
            context.cleanup()


def _options(cgroups: Tuple[List[str], Optional[str]], netns: Optional[str], ramfs: Any) -> _stockade.AdoptOptions:
    settings, parent = cgroups
    return _stockade.AdoptOptions(netns=netns, ramfs=ramfs, cgroups=settings, parent_cgroup=parent)


def _netns_names() -> Set[str]:
    try:
        return set(os.listdir(_NETNS_DIRECTORY))
    except FileNotFoundError:
        return set()


def _ensure_file(source: Path) -> None:
    # For a missing file, `stat` raises the operating system's error.
    if stat.S_ISDIR(os.stat(source).st_mode):
        raise IsADirectoryError(errno.EISDIR, "file_path: is a directory", str(source))


def _unused_name() -> str:
    return f"context-{secrets.token_hex(8)}"
