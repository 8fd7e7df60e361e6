"""Jails as pytest fixtures. They are removed after each test, and a leak fails the test."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Any, Callable, Dict, Generator, Iterator, List, Set

import pytest

from . import firecracker
from ._checks import printable
from ._context import Context
from .errors import StockadeError
from .jail import ALIVE as JAILS
from .jail import Jail
from .jailer_context import ALIVE as CONTEXTS

JailFactory = Callable[..., Jail]

_JAILS = pytest.StashKey[List[Jail]]()
_FAILED = pytest.StashKey[bool]()
_KEPT = "stockade-kept"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stockade")
    group.addoption(
        "--stockade-keep",
        action="store_true",
        help="keep the jails of a failing test, and print how to enter them",
    )
    parser.addini("stockade_exec_file", "default VMM of jails")
    parser.addini("stockade_chroot_base", "directory that holds jails", default="/srv/jailer")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "jail(**properties): the parameters of the test's jail")


@pytest.fixture
def jail_factory(request: pytest.FixtureRequest) -> Iterator[JailFactory]:
    """Creates jails: ``jail_factory(exec_file="/usr/local/bin/firecracker", netns="vm-1")``.

    The parameters are those of :class:`stockade.Jail`; the default id is unique. At the end of the test the jails are
    removed. The test fails if it leaked a part of them, or another jail, context or process.
    """
    item, created = request.node, list[Jail]()
    item.stash[_JAILS] = created
    name = _unique_name(item.name)
    jails, contexts, children = set(JAILS), set(_contexts()), _children()

    def create(**properties: Any) -> Jail:
        given: Dict[str, Any] = {
            "id": f"{name}-{len(created)}",
            "exec_file": request.config.getini("stockade_exec_file"),
            "chroot_base": request.config.getini("stockade_chroot_base"),
            **properties,
        }
        if not given["exec_file"]:
            raise pytest.UsageError("a jail needs an exec_file; pass it, or set stockade_exec_file")
        jail = Jail(given.pop("id"), given.pop("exec_file"), **given)
        created.append(jail)
        return jail.create()

    yield create
    leaks: List[str] = []
    keep = request.config.getoption("--stockade-keep") and item.stash.get(_FAILED, False)
    for jail in reversed(created):
        if keep and jail in JAILS:
            item.user_properties.append((_KEPT, _how_to_enter(jail)))
            jail.leave()
        else:
            leaks += _leaks_of(jail.teardown)
    # A failed test may have had no chance to remove these.
    failed = item.stash.get(_FAILED, False)
    for other in set(JAILS) - jails:
        leaks += [] if failed else [f"jail {other.id}"]
        leaks += _leaks_of(other.teardown)
    for context in set(_contexts()) - contexts:
        leaks += [] if failed else [f"JailerContext {context.jailer_id}"]
        leaks += _leaks_of(context.cleanup)
    if not keep:
        leaks += _traces(name)
        leaks += [f"process {pid} ({_comm(pid)})" for pid in sorted(_children() - children)]
    if leaks:
        pytest.fail(f"{item.nodeid} leaked: {', '.join(leaks)}", pytrace=False)


@pytest.fixture
def jail(request: pytest.FixtureRequest, jail_factory: JailFactory) -> Jail:
    """A created jail with the parameters of the test's marker ``jail``."""
    marker = request.node.get_closest_marker("jail")
    return jail_factory(**(marker.kwargs if marker else {}))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    report = outcome.get_result()
    if report.failed and report.when != "teardown":
        item.stash[_FAILED] = True
        for jail in item.stash.get(_JAILS, []):
            report.sections.append((f"stockade jail {jail.id}", _describe(jail)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    kept = {
        text
        for report in reports
        for name, text in getattr(report, "user_properties", [])
        if name == _KEPT
    }
    if kept:
        terminalreporter.section("kept jails")
        for text in sorted(kept):
            terminalreporter.write_line(text)


def _contexts() -> List[Context]:
    """The contexts of both classes that were set up and not cleaned up."""
    return [*CONTEXTS, *firecracker.alive()]


def _describe(jail: Jail) -> str:
    try:
        return printable(jail.describe())
    except StockadeError as error:
        return str(error)


def _leaks_of(teardown: Callable[[], None]) -> List[str]:
    try:
        teardown()
    except StockadeError as error:
        return [str(error)]
    return []


def _how_to_enter(jail: Jail) -> str:
    remove = f"remove it:  stockade rm --force {jail.id}"
    if jail.vm is not None and jail.vm.poll() is None:
        pid = jail.vm.pid
        enter = f"nsenter --target {pid} --net --pid -- sh -c 'cd /proc/{pid}/root && exec sh'"
        return f"jail {jail.id} runs as pid {pid}\n  enter it:   {enter}\n  {remove}"
    return f"jail {jail.id} is not running\n  enter it:   cd {jail.root}\n  {remove}"


def _unique_name(test: str) -> str:
    readable = re.sub(r"[^a-zA-Z0-9]+", "-", test)[:32].strip("-")
    return f"{readable}-{secrets.token_hex(4)}"


def _traces(name: str) -> List[str]:
    """The objects of the host with the test's name in their names."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        at, kind = fields[4], fields[fields.index("-") + 1]
        if name in at and not at.startswith("/run/netns/"):
            found.append(f"mount {at}")
        if kind in ("cgroup", "cgroup2"):
            found += [f"cgroup {at}" for at in _below(at, name)]
    if os.path.isdir("/run/netns"):
        found += [f"network namespace {netns}" for netns in os.listdir("/run/netns") if name in netns]
    return sorted(set(found))


def _below(directory: str, name: str) -> List[str]:
    return [os.path.join(at, below) for at, names, _ in os.walk(directory) for below in names if name in below]


def _children() -> Set[int]:
    """The running children of this process, of any thread."""
    found: Set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            listed = Path(f"/proc/self/task/{task}/children").read_text().split()
        except OSError:
            continue
        found |= {int(pid) for pid in listed if _comm(int(pid))}
    return found


def _comm(pid: int) -> str:
    """The name of a running process; empty for a zombie or a missing process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    name, _, rest = stat.partition("(")[2].rpartition(") ")
    return "" if rest.startswith(("Z", "X")) else name
