"""The class of Firecracker's test framework with which a test makes a jail for each microVM."""

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
    """The name of the API socket: what the VMM is told, otherwise what the field was set to.

    One value with one origin, whether the parameter list was built already or not.
    """

    def __get__(self, context: Optional[JailerContext], _: object = None) -> Any:
        if context is None:
            return None
        told = (context.extra_args or {}).get("api-sock")
        return context.__dict__.get("api_socket_name") if told is None else told

    def __set__(self, context: JailerContext, name: Any) -> None:
        context.__dict__["api_socket_name"] = name


@dataclass
class _Adopted:
    """A jail that was adopted, where it is by the fields of then, and what is on its receipt."""

    jail: _stockade.Adopted
    base: str
    place: Optional[Tuple[str, str]]
    written: Tuple[List[str], Optional[str]]


class JailerContext:
    """Represents jailer configuration and contains jailer helper functions.

    Each microvm will have a jailer configuration associated with it. Every field can be set at any time, to
    None too: what was made is removed by :meth:`cleanup` whatever the fields say then.
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
    # The jails that were adopted by this context, and by which process.
    _adopted: Tuple[_Adopted, ...] = ()
    _keeper = 0
    # The network namespaces that were there when this context was set up: those are others'.
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
        """Set up jailer fields.

        Any further keyword is an argument for the VMM: ``--key value``, or ``--key`` alone for None. Each
        field can be further adjusted by each test even with None values.
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
        """Cleanup this jailer context."""
        # Nobody hears of a failure here, and at the end of the interpreter half of it is gone; the receipt
        # stays for `stockade gc` then.
        with contextlib.suppress(Exception):
            self.cleanup()

    def __getstate__(self) -> Dict[str, Any]:
        """A copy has the fields; what was made stays the original's."""
        own = ("_adopted", "_keeper", "_foreign_netns", "_uses_ramfs")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def construct_param_list(self) -> List[str]:
        """Create the list of parameters we want the jailer to start with.

        We want to be able to vary any parameter even the required ones as we might want to add integration
        tests that validate the enforcement of mandatory arguments.
        """
        # Written down before the jailer can make it.
        self._update_receipt()
        parameters: List[str] = []
        # Pretty please, try to keep the same order as in the code base.
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
        # applying necessary extra args if needed
        if self.extra_args:
            parameters.append("--")
            for key, value in self.extra_args.items():
                parameters.append(f"--{key}")
                if value is not None:
                    parameters.append(value)
        return parameters

    def chroot_base_with_id(self) -> str:
        """Return the MicroVM chroot base + MicroVM ID."""
        return os.path.join(
            self._base(), path_of("exec_file", self.exec_file).name, text_of("jailer_id", self.jailer_id)
        )

    def api_socket_path(self) -> str:
        """Return the MicroVM API socket path."""
        # The VMM's root is the jail's, so a socket at an absolute path is in there too.
        name = os.fspath(path_of("api_socket_name", self.api_socket_name))
        return os.path.join(self.chroot_path(), name.lstrip(os.path.sep))

    def chroot_path(self) -> str:
        """Return the MicroVM chroot path."""
        return os.path.join(self.chroot_base_with_id(), "root")

    def chroot_ramfs_path(self) -> str:
        """Return the MicroVM chroot ramfs subfolder path."""
        return os.path.join(self.chroot_path(), text_of("ramfs_subdir_name", self.ramfs_subdir_name))

    @property
    def uses_ramfs(self) -> bool:
        """Is this jailer using ramfs?"""
        return self._uses_ramfs

    def jailed_path(self, file_path: _StrPath, create: bool = False, create_jail: bool = False) -> str:
        """Return the path to a file which is valid within the jail; with `create` put the file there.

        A block device becomes a device node, a file on the same filesystem a hard link, if it belongs to
        uid:gid already and has no set-uid bits and no capabilities, and everything else a copy; what was there is replaced. It belongs to uid:gid, and
        the host's file stays as it is.
        """
        source = path_of("file_path", file_path)
        if create_jail:
            self._need_place()
            self._current().make_root()
        if create:
            self._need_place()
            uid, gid = self._owner()
            _demand_file(source)
            os.stat(self.chroot_path())
            self._current().place(source, source.name, False, uid, gid)
        return str(Path("/") / source.name)

    def copy_into_root(self, file_path: _StrPath, create_jail: bool = False) -> None:
        """Copy a file in the jail root, owned by uid:gid.

        It gets the same path there as here; folders on the way are made.
        """
        self._need_place()
        uid, gid = self._owner()
        source = path_of("file_path", file_path)
        _demand_file(source)
        adopted = self._current()
        # The folders on the way are made whether it is asked for or not, the root among them.
        adopted.make_root()
        adopted.place(source, os.fspath(source).strip(os.path.sep), True, uid, gid)

    def netns_file_path(self) -> Optional[str]:
        """Get the host netns file path for a jailer context.

        Returns the path on the host to the file which represents the netns, and which must be passed to the
        jailer as the value of the --netns parameter, when in use.
        """
        return f"{_NETNS_DIRECTORY}/{self.netns}" if self.netns else None

    def netns_cmd_prefix(self) -> str:
        """Return the jailer context netns file prefix."""
        return f"ip netns exec {self.netns} " if self.netns else ""

    def setup(self, use_ramdisk: bool = False) -> None:
        """Set up this jailer context: its base, its network namespace, and a ramfs of 1 MiB if asked for.

        From here on a jail that this process cannot clean up is found by ``stockade gc``.
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
        """Clean up this jailer context.

        Ends whatever runs in the jail, and removes what was made for it, by this context or by the jailer:
        of what was set up, and of what the fields name now. Harmless when run again. What cannot be removed
        is warned of, and stays on the receipt for ``stockade gc``.
        """
        if self._adopted and self._keeper != os.getpid():
            # A forked copy of the process that set it up.
            return
        try:
            self._adopt_what_is_there()
        finally:
            adopted, self._adopted = self._adopted, ()
            self._foreign_netns = None
            ALIVE.discard(self)
            for one in reversed(adopted):
                for what, why in one.jail.teardown():
                    warnings.warn(f"{what}: {why}; it is left to stockade gc", ResourceWarning, stacklevel=2)

    # What follows is not of the original.

    def _base(self) -> str:
        base = self.chroot_base
        return DEFAULT_CHROOT_PATH if base is None else os.fspath(path_of("chroot_base", base))

    def _owner(self) -> Tuple[int, int]:
        return number_of("uid", self.uid), number_of("gid", self.gid)

    def _place(self) -> Optional[Tuple[str, str]]:
        """The names of the executable and of the jail, if the fields have both."""
        if not self.jailer_id or self.exec_file is None:
            return None
        names = path_of("exec_file", self.exec_file).name, text_of("jailer_id", self.jailer_id)
        # With any other the jailer makes nothing.
        return names if all(is_component(name) for name in names) else None

    def _need_place(self) -> None:
        self.chroot_base_with_id()
        if self._place() is None:
            raise ValueError(f"jailer_id must be the name of a directory, not {self.jailer_id!r}")

    def _cgroups(self) -> Tuple[List[str], Optional[str]]:
        settings = [str(setting) for setting in each("cgroups", self.cgroups)]
        return settings, str(self.parent_cgroup) if self.parent_cgroup else None

    def _current(self, netns: Optional[str] = None, ramfs: Any = None) -> _stockade.Adopted:
        """The adopted jail that the fields name now, with what they want."""
        found = self._find()
        if found is None:
            try:
                return self._adopt(self._receipt_name(), netns, ramfs)
            except InUse:
                # By a jail elsewhere that is called the same, or another context of this one.
                return self._adopt(_unused_name(), netns, ramfs)
        cgroups = self._cgroups()
        if cgroups != found.written or netns is not None or ramfs is not None:
            found.jail.want(_wants(cgroups, netns, ramfs))
            found.written = cgroups
        return found.jail

    def _receipt_name(self) -> str:
        is_id = isinstance(self.jailer_id, str) and _stockade.is_jail_id(self.jailer_id)
        return self.jailer_id if is_id else _unused_name()

    def _find(self) -> Optional[_Adopted]:
        place = self._place()
        if not self._adopted or place is None:
            return self._adopted[-1] if self._adopted else None
        base = self._base()
        return next((one for one in self._adopted if (one.base, one.place) == (base, place)), None)

    def _resolved_place(self) -> Optional[Tuple[str, str]]:
        """The names that the jailer will use, if they are others: it follows links to the executable."""
        place = self._place()
        resolved = os.path.basename(os.path.realpath(self.exec_file)) if place else ""
        return (resolved, place[1]) if place and is_component(resolved) and resolved != place[0] else None

    def _expect_resolved(self) -> None:
        base, place = self._base(), self._resolved_place()
        if place and not any((one.base, one.place) == (base, place) for one in self._adopted):
            self._adopt(_unused_name(), place=place)

    def _adopt(
        self,
        name: str,
        netns: Optional[str] = None,
        ramfs: Any = None,
        place: Optional[Tuple[str, str]] = None,
    ) -> _stockade.Adopted:
        base, place, cgroups = self._base(), place or self._place(), self._cgroups()
        jail = _stockade.adopt(default_state_dir(), name, base, place, _wants(cgroups, netns, ramfs))
        self._adopted += (_Adopted(jail, base, place, cgroups),)
        self._keeper = os.getpid()
        ALIVE.add(self)
        return jail

    def _update_receipt(self) -> None:
        """Writes down what the jailer may make of the fields as they are now, if this context was set up."""
        if self._adopted and self._keeper == os.getpid():
            with contextlib.suppress(StockadeError, TypeError, ValueError):
                # Parameters may be wrong on purpose; with those the jailer makes nothing.
                self._current()
                self._expect_resolved()

    def _adopt_what_is_there(self) -> None:
        """Has what the fields name now removed too, though it was not set up by this context."""
        with contextlib.suppress(StockadeError, TypeError, ValueError):
            if self._adopted:
                jail = self._current()
                if self.netns and self._foreign_netns is not None:
                    came_since = _netns_names() - self._foreign_netns
                    if self.netns in came_since:
                        jail.expect_netns(self.netns)
                self._expect_resolved()
            elif self._place() and self._is_anything_there():
                # One that is in use is another context's to clean up.
                self._adopt(self._receipt_name())
                self._expect_resolved()

    def _is_anything_there(self) -> bool:
        places = [place for place in (self._place(), self._resolved_place()) if place]
        return bool(self.cgroups) or any(os.path.lexists(os.path.join(self._base(), *p)) for p in places)


# Contexts that have something to clean up when the interpreter ends.
ALIVE: weakref.WeakSet[JailerContext] = weakref.WeakSet()


@atexit.register
def _cleanup_all() -> None:
    for context in list(ALIVE):
        with contextlib.suppress(Exception):
            context.cleanup()


def _wants(cgroups: Tuple[List[str], Optional[str]], netns: Optional[str], ramfs: Any) -> _stockade.AdoptOptions:
    settings, parent = cgroups
    return _stockade.AdoptOptions(netns=netns, ramfs=ramfs, cgroups=settings, parent_cgroup=parent)


def _netns_names() -> Set[str]:
    try:
        return set(os.listdir(_NETNS_DIRECTORY))
    except FileNotFoundError:
        return set()


def _demand_file(source: Path) -> None:
    # What is missing is told of in the operating system's words.
    if stat.S_ISDIR(os.stat(source).st_mode):
        raise IsADirectoryError(errno.EISDIR, "file_path: is a directory", str(source))


def _unused_name() -> str:
    return f"context-{secrets.token_hex(8)}"
