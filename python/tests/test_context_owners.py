"""Nothing on the host changes owner that was not created for the jail: random trees of files, links and owners."""

from __future__ import annotations

import os
import random
import socket
import stat
from pathlib import Path
from typing import Dict, List, NamedTuple, Set

import pytest
from conftest import GID, UID, AnyContext, Guard

from stockade import JailerContext, StockadeError

OWNERS = [(0, 0), (0, 0), (UID, GID), (UID, 0), (1000, 1000), (UID + 1, GID)]


class Facts(NamedTuple):
    """What must not change about a file of the host."""

    owner: "tuple[int, int]"
    mode: int
    content: bytes


def facts(path: Path) -> Facts:
    found = path.lstat()
    content = path.read_bytes() if stat.S_ISREG(found.st_mode) else b""
    return Facts((found.st_uid, found.st_gid), found.st_mode, content)


class Tree:
    """Directories of the host, of the jail and of another jail, with random entries."""

    def __init__(self, guard: Guard, context: AnyContext, chance: random.Random) -> None:
        self.own = Path(context.chroot_base_with_id())
        self.root = Path(context.chroot_path())
        other = self.own.with_name(guard.named("other"))
        outside = guard.directory / "outside"
        self.directories = [outside, outside / "deep", self.own, self.own / "deep", self.root, self.root / "deep"]
        self.directories += [other, other / "root"]
        for directory in self.directories:
            directory.mkdir(parents=True, exist_ok=True)
        for directory in (self.root, self.root / "deep", other / "root"):
            os.chown(directory, UID, GID)
        self.chance = chance
        self.paths: List[Path] = []
        for number in range(chance.randrange(6, 16)):
            self.add(chance.choice(self.directories) / f"{number}")

    def add(self, path: Path) -> None:
        kinds = ["file"] * 4 + ["pipe", "socket"] + ["link", "symlink"] * 2
        chance, kind = self.chance, self.chance.choice(kinds)
        if kind == "link" and self.paths:
            os.link(chance.choice(self.paths), path, follow_symlinks=False)
        elif kind == "symlink" and self.paths:
            # To a file, or through a directory.
            target = chance.choice(self.paths)
            path.symlink_to(chance.choice([target, target.parent]))
        else:
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "socket":
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(str(path))
            else:
                path.write_text(str(path))
            os.chown(path, *chance.choice(OWNERS))
            # The kernel removes these bits from every file that changes its owner; on a pipe they mean nothing.
            path.chmod(chance.choice([0o600, 0o644, 0o777] + [0o4755, 0o2755] * (kind not in ("pipe", "socket"))))
        self.paths.append(path)

    def source(self) -> Path:
        """A path as a caller may give it: of a file, or of one through a symbolic link to its directory."""
        path = self.chance.choice(self.paths)
        through = [link for link in self.paths if link.is_symlink() and os.path.isdir(link)]
        if through and self.chance.random() < 0.2:
            link = self.chance.choice(through)
            below = [one.name for one in link.resolve().iterdir()]
            return link / self.chance.choice(below) if below else path
        return path

    def snapshot(self) -> "Dict[int, Facts]":
        return {path.lstat().st_ino: facts(path) for path in self.everything()}

    def everything(self) -> List[Path]:
        tops = {self.directories[0], self.own.parent}
        return [Path(at, name) for top in tops for at, below, names in os.walk(top) for name in [*below, *names]]

    def may_change(self, sources: List[Path]) -> Set[int]:
        """The files that were created for the jail, by their inodes: computed before anything is placed."""
        names: Dict[int, List[Path]] = {}
        for path in self.everything():
            names.setdefault(path.lstat().st_ino, []).append(path)
        made = set()
        for source in sources:
            if not os.path.exists(source):
                continue
            found = os.stat(source)
            kind, known = stat.S_IFMT(found.st_mode), names.get(found.st_ino, [])
            only_linked = kind in (stat.S_IFIFO, stat.S_IFSOCK)
            # All names: a placement in the root may remove one of them.
            is_own = len(known) == found.st_nlink and all(self.own in name.parents for name in known)
            is_callers = only_linked and found.st_uid in (0, UID) and found.st_nlink == 1
            # A privileged file is copied.
            is_plain = only_linked or not found.st_mode & 0o6000
            if is_plain and (is_own or is_callers):
                made.add(found.st_ino)
        return made


@pytest.mark.parametrize("vintage", ["context", "today"])
@pytest.mark.parametrize("seed", range(25))
def test_only_files_made_for_the_jail_change_their_owner(guard: Guard, vintage: str, seed: int) -> None:
    chance = random.Random(f"{vintage} {seed}")
    for _ in range(4):
        context: AnyContext = getattr(guard, vintage)()
        context.netns = None
        context.setup()
        tree = Tree(guard, context, chance)
        sources = [tree.source() for _ in range(12)]
        before, made = tree.snapshot(), tree.may_change(sources)
        outside = {path: path.lstat().st_ino for path in tree.everything() if tree.root not in path.parents}
        for source in sources:
            share = chance.choice([None, None, False])
            try:
                if chance.random() < 0.2:
                    context.copy_into_root(str(source))
                elif isinstance(context, JailerContext):
                    context.jailed_path(source, create=True, create_jail=True, share=share)
                else:
                    context.jailed_path(source, create=True, subdir=chance.choice([".", "sub"]), share=share)
            except (StockadeError, OSError):
                pass
        after = tree.snapshot()
        for path, inode in outside.items():
            assert path.lstat().st_ino == inode, f"{path} is another file"
            if inode not in made:
                assert after[inode] == before[inode], f"{path} changed"
            else:
                assert after[inode].owner in (before[inode].owner, (UID, GID))
                assert (after[inode].mode, after[inode].content) == before[inode][1:]
        # What the jail can reach is its own, or was in its tree before.
        for at, _, names in os.walk(tree.root):
            for name in names:
                found = Path(at, name).lstat()
                assert found.st_ino in before or (found.st_uid, found.st_gid) == (UID, GID)
                assert found.st_ino in before or not found.st_mode & 0o6000
        context.cleanup()
        remaining = [path for path in outside if tree.own not in path.parents and path != tree.own]
        assert all(os.path.lexists(path) for path in remaining)
        for path in sorted(tree.everything(), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        for top in (guard.base / "stockade-probe", guard.base):
            if top.is_dir():
                top.rmdir()
