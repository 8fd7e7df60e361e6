import os
from pathlib import Path
from typing import Optional, Sequence, Tuple, Union, final

_Path = Union[str, "os.PathLike[str]"]

@final
class Wants:
    def __new__(
        cls,
        *,
        netns: Optional[str] = None,
        ramfs: Optional[Tuple[str, str, int, int, int]] = None,
        cgroups: Sequence[str] = ...,
        parent_cgroup: Optional[str] = None,
    ) -> Wants: ...

@final
class Adopted:
    def jail_dir(self) -> Path: ...
    def want(self, wants: Wants) -> None: ...
    def expect_netns(self, name: str) -> None: ...
    def make_root(self) -> None: ...
    def place(self, source: _Path, name: _Path, copy: bool, uid: int, gid: int) -> str: ...
    def teardown(self) -> list[tuple[str, str]]: ...

def adopt(
    state_dir: _Path, name: str, base: _Path, jail: Optional[Tuple[str, str]], wants: Wants
) -> Adopted: ...
def is_jail_id(name: str) -> bool: ...
