"""The common part of both classes ``JailerContext``: that of May 2023 and that of today."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple, Union

from . import _stockade
from ._checks import each, is_component, owner_of, path_of, printable, text_of
from ._state import default_state_dir
from .errors import InUse, InvalidSpec, StockadeError

# Default name for the socket used for API calls.
DEFAULT_USOCKET_NAME = "run/firecracker.socket"

# The default location for the chroot.
DEFAULT_CHROOT_PATH = "/srv/jailer"

StrPath = Union[str, "os.PathLike[str]"]

_ONLY_LINKED = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}


class _ApiSocketName:
    """The name of the API socket: the VMM's argument, otherwise the value of the field.

    The value does not depend on whether the parameter list was built before.
    """

    def __get__(self, context: Optional[Context], _: object = None) -> Any:
        if context is None:
            return None
        argument = (context.extra_args or {}).get("api-sock")
        return context.__dict__.get("api_socket_name") if argument is None else argument

    def __set__(self, context: Context, name: Any) -> None:
        context.__dict__["api_socket_name"] = name


@dataclass
class AdoptedJail:
    """An adopted jail, with the values that the fields had.

    ``names`` are those of the executable and the jail, or the directory of a lone root and ``"."``. ``written`` are the
    cgroups on the receipt.
    """

    jail: _stockade.Adopted
    state_dir: str
    base: str
    names: Optional[Tuple[str, str]]
    written: Tuple[List[str], Optional[str]]
    exists: bool = True

    def is_for(self, base: str, names: Optional[Tuple[str, str]]) -> bool:
        return self.exists and (self.base, self.names) == (base, names)

    def teardown(self) -> List[Tuple[str, str]]:
        """Removes the jail, and returns what is left. A second call does nothing."""
        if not self.exists:
            return []
        self.exists = False
        return self.jail.teardown()


class Context:
    """The fields, the parameter list and the placements of a jailer context, and its adopted jails."""

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

    share: Optional[bool] = None
    """Which files :meth:`jailed_path` gives to uid:gid, as hard links: True for every file, False for none. With None
    those that were created for this jail: in its own directory, and named pipes and sockets of the caller."""

    _uses_ramfs = False
    # The jails that this context adopted, and the pid of the owning process.
    _adopted: Tuple[AdoptedJail, ...] = ()
    _owning_pid = 0

    # What a copy of a context does not get.
    _not_copied: Tuple[str, ...] = ("_adopted", "_owning_pid", "_uses_ramfs")

    def __getstate__(self) -> Dict[str, Any]:
        """A copy has the fields, but does not own the created jails."""
        return {name: value for name, value in self.__dict__.items() if name not in self._not_copied}

    def construct_param_list(self) -> List[str]:
        """Return the jailer's arguments for the current fields.

        A field that is None adds no argument, even if the jailer requires it, and invalid values are passed on, so that
        tests can check the refusal.

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

    def chroot_base_with_id(self) -> Any:
        """Return the jail's directory, ``BASE/EXECUTABLE/ID``."""
        return os.path.join(
            self._base(), path_of("exec_file", self.exec_file).name, text_of("jailer_id", self.jailer_id)
        )

    def api_socket_path(self) -> str:
        """Return the host's path of the API socket."""
        # The VMM's root is the jail's, so a socket at an absolute path is in the jail too.
        name = os.fspath(path_of("api_socket_name", self.api_socket_name))
        return os.path.join(self.chroot_path(), name.lstrip(os.path.sep))

    def chroot_path(self) -> Any:
        """Return the host's path of the jail's root."""
        return os.path.join(self.chroot_base_with_id(), "root")

    def chroot_ramfs_path(self) -> Any:
        """Return the host's path of the ramfs in the jail."""
        return os.path.join(self.chroot_path(), text_of("ramfs_subdir_name", self.ramfs_subdir_name))

    @property
    def uses_ramfs(self) -> bool:
        """Whether :meth:`setup` created a ramfs."""
        return self._uses_ramfs

    def copy_into_root(self, file_path: StrPath, create_jail: bool = False) -> None:
        """Copy a file into the jail, owned by uid:gid.

        The copy has the same path as on the host. Missing directories, the root among them, are created.

        :param file_path: the path on the host
        :param create_jail: without effect, since the root is always created
        :raises InvalidSpec: if it is a socket or named pipe
        :raises OSError: if the file does not exist or is a directory
        """
        self._ensure_below_base()
        uid, gid = self._owner()
        source = path_of("file_path", file_path)
        kind = _ONLY_LINKED.get(stat.S_IFMT(_kind_of_file(source)))
        if kind:
            raise InvalidSpec(f"file_path: '{source}' is a {kind}, which cannot be copied; use jailed_path")
        adopted = self._current()
        # Regardless of create_jail, as in Firecracker's class.
        adopted.make_root()
        adopted.copy(source, os.fspath(source).strip(os.path.sep), uid, gid)

    def netns_file_path(self) -> Optional[str]:
        """Return the host's path of the network namespace, for the jailer's ``--netns``; None without one."""
        raise NotImplementedError

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
            self._forget()
            for one in reversed(adopted):
                for what, reason in one.teardown():
                    text = printable(f"{what}: {reason}; run stockade gc later")
                    warnings.warn(text, ResourceWarning, stacklevel=2)

    # The following members are not in Firecracker's class.

    def _remember(self) -> None:
        """Called when the context has adopted a jail."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Called when the context is cleaned up."""
        raise NotImplementedError

    def _of_others(self, base: str, names: Tuple[str, str]) -> Optional[AdoptedJail]:
        """The jail of another context that this one may use too."""
        return None

    def _base(self) -> str:
        base = self.chroot_base
        return DEFAULT_CHROOT_PATH if base is None else os.fspath(path_of("chroot_base", base))

    def _owner(self) -> Tuple[int, int]:
        return owner_of("uid", self.uid), owner_of("gid", self.gid)

    def _make_root(self) -> None:
        self._ensure_below_base()
        self._current().make_root()

    def _place(self, source: Path, name: StrPath, share: Optional[bool]) -> None:
        names = self._ensure_below_base()
        uid, gid = self._owner()
        _kind_of_file(source)
        os.stat(os.path.join(self._base(), *names, "root"))
        self._current().place(source, name, uid, gid, share)

    def _policy(self, share: Optional[bool]) -> Optional[bool]:
        """Which files are shared."""
        share = self.share if share is None else share
        if not (share is None or isinstance(share, bool)):
            raise TypeError(f"share must be a bool or None, not {type(share).__name__}")
        return share

    def _names(self) -> Optional[Tuple[str, str]]:
        """The names of the executable and the jail, or the directory of a lone root and ``"."``.

        None if a field is missing, or if the jail's directory is not below the base.
        """
        if self.jailer_id is None or self.exec_file is None:
            return None
        names = path_of("exec_file", self.exec_file).name, text_of("jailer_id", self.jailer_id)
        if all(is_component(name) for name in names):
            return names
        # The jailer refuses such a name and creates nothing, but the caller may create the root.
        below = os.path.normpath(os.path.join(*names))
        is_below = not os.path.isabs(below) and below.split(os.path.sep)[0] not in ("..", ".")
        return (below, ".") if is_below and "\0" not in below else None

    def _jailers_names(self) -> Optional[Tuple[str, str]]:
        """The same, but None if no jailer would create the directory."""
        names = self._names()
        return names if names and names[1] != "." else None

    def _ensure_below_base(self) -> Tuple[str, str]:
        """The same, for a jail in which something is created."""
        self.chroot_base_with_id()
        names = self._names()
        if names is None and not is_component(path_of("exec_file", self.exec_file).name):
            raise ValueError(f"exec_file must be the path of a file, not {os.fspath(self.exec_file)!r}")
        if names is None:
            raise ValueError(f"jailer_id must be a path below chroot_base, not {self.jailer_id!r}")
        return names

    def _cgroups(self) -> Tuple[List[str], Optional[str]]:
        settings = [str(setting) for setting in each("cgroups", self.cgroups)]
        if self._jailers_names() is None:
            settings = []
        return settings, str(self.parent_cgroup) if self.parent_cgroup else None

    def _current(self, netns: Optional[str] = None, ramfs: Any = None) -> _stockade.Adopted:
        """The adopted jail of the current fields, with their options on its receipt."""
        found = self._find()
        if found is None:
            try:
                return self._adopt(self._receipt_name(), netns, ramfs)
            except InUse:
                # A jail with the same id elsewhere, or another context of this jail.
                return self._adopt(unused_name(), netns, ramfs)
        cgroups = self._cgroups()
        if cgroups != found.written or netns is not None or ramfs is not None:
            found.jail.want(_options(cgroups, netns, ramfs))
            found.written = cgroups
        return found.jail

    def _receipt_name(self) -> str:
        is_id = isinstance(self.jailer_id, str) and _stockade.is_jail_id(self.jailer_id)
        return self.jailer_id if is_id else unused_name()

    def _find(self) -> Optional[AdoptedJail]:
        own = [one for one in self._adopted if one.exists]
        names = self._names()
        if names is None:
            return own[-1] if own else None
        base = self._base()
        found = next((one for one in own if one.is_for(base, names)), None)
        if found is None:
            found = self._of_others(base, names)
            if found is not None:
                self._take(found)
        return found

    def _resolved_names(self) -> Optional[Tuple[str, str]]:
        """The names that the jailer uses, if they differ: it resolves symbolic links to the executable."""
        names = self._jailers_names()
        resolved = os.path.basename(os.path.realpath(self.exec_file)) if names else ""
        return (resolved, names[1]) if names and is_component(resolved) and resolved != names[0] else None

    def _expect_resolved(self) -> None:
        base, names = self._base(), self._resolved_names()
        if names and not any(one.is_for(base, names) for one in self._adopted):
            found = self._of_others(base, names)
            if found is not None:
                self._take(found)
            else:
                self._adopt(unused_name(), names=names)

    def _adopt(
        self,
        name: str,
        netns: Optional[str] = None,
        ramfs: Any = None,
        names: Optional[Tuple[str, str]] = None,
    ) -> _stockade.Adopted:
        base, names, cgroups = self._base(), names or self._names(), self._cgroups()
        state_dir = default_state_dir()
        jail = _stockade.adopt(state_dir, name, base, names, _options(cgroups, netns, ramfs))
        self._take(AdoptedJail(jail, state_dir, base, names, cgroups))
        return jail

    def _take(self, jail: AdoptedJail) -> None:
        self._adopted += (jail,)
        self._owning_pid = os.getpid()
        self._remember()

    def _update_receipt(self) -> None:
        """Writes the objects that the jailer may create for the current fields to the receipt, after a set-up."""
        if self._adopted and self._owning_pid == os.getpid():
            with suppress(StockadeError, TypeError, ValueError):
                # Errors are ignored: tests may use invalid parameters, and the jailer then creates nothing.
                self._current()
                self._expect_resolved()

    def _adopt_existing(self) -> None:
        """Adopts the objects of the current fields that this context did not set up, so that they are removed too."""
        with suppress(StockadeError, TypeError, ValueError):
            if self._adopted:
                self._adopt_later(self._current())
                self._expect_resolved()
            elif self._jailers_names() and self._may_exist():
                # InUse is ignored: another context cleans up the jail.
                if self._find() is None:
                    self._adopt(self._receipt_name())
                self._expect_resolved()

    def _adopt_later(self, jail: _stockade.Adopted) -> None:
        """Adds objects that others created for the jail since the set-up."""

    def _may_exist(self) -> bool:
        both = [names for names in (self._names(), self._resolved_names()) if names]
        return bool(self.cgroups) or any(os.path.lexists(os.path.join(self._base(), *names)) for names in both)

    def _set_up(self, use_ramdisk: bool, netns: Optional[str] = None) -> None:
        ramfs = None
        if use_ramdisk:
            self.chroot_ramfs_path()
            ramfs = (self.ramfs_subdir_name, f"ramfs-{self.jailer_id}", 1 << 20, *self._owner())
        self._current(netns=netns, ramfs=ramfs)
        self._expect_resolved()
        self._uses_ramfs = self._uses_ramfs or use_ramdisk


def _options(cgroups: Tuple[List[str], Optional[str]], netns: Optional[str], ramfs: Any) -> _stockade.AdoptOptions:
    settings, parent = cgroups
    return _stockade.AdoptOptions(netns=netns, ramfs=ramfs, cgroups=settings, parent_cgroup=parent)


def _kind_of_file(source: Path) -> int:
    """The mode of a file. For a missing file, `stat` raises the operating system's error."""
    mode = os.stat(source).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "file_path: is a directory", str(source))
    return mode


def unused_name() -> str:
    """A receipt name that no jail has."""
    return f"context-{secrets.token_hex(8)}"
