"""Tests of the pytest plugin, with generated suites."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Guard, is_running

HEAD = """
import os, subprocess
import pytest
from stockade import Jail, JailerContext, firecracker
VMM = {vmm!r}
BASE = {base!r}
pytestmark = pytest.mark.jail(exec_file=VMM, chroot_base=BASE)
"""


@pytest.fixture
def suite(guard: Guard, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a file of tests in its own process, under the tests' lock."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(tests: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(HEAD.format(vmm=str(guard.vmm), base=str(guard.base)) + tests)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=60)

    return run


def test_a_jail_exists_until_the_end_of_its_test(guard: Guard, suite: Any) -> None:
    result = suite(
        """
def test_one(jail):
    vm = jail.launch("sleep")
    assert os.path.isdir(jail.root) and vm.poll() is None

def test_two(jail_factory):
    first, second = jail_factory(exec_file=VMM, chroot_base=BASE), jail_factory(exec_file=VMM, chroot_base=BASE)
    assert first.id != second.id
"""
    )
    result.assert_outcomes(passed=2)
    assert not guard.base.exists()


def test_a_missing_vmm_is_reported(suite: Any) -> None:
    result = suite("def test_one(jail_factory):\n    jail_factory(chroot_base=BASE)\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*a jail needs an exec_file*"])


def test_the_vmm_of_the_configuration_is_used(guard: Guard, suite: Any, pytester: pytest.Pytester) -> None:
    pytester.makeini(f"[pytest]\nstockade_exec_file = {guard.vmm}\nstockade_chroot_base = {guard.base}\n")
    result = suite("del pytestmark\ndef test_one(jail):\n    jail.launch('exit=0').wait(20)\n")
    result.assert_outcomes(passed=1)


LEAKS = {
    "a jail of its own": ("left = Jail(jail.id + '-own', VMM, chroot_base=BASE).create()", "jail test-one-*-own"),
    "a context": (
        "left = JailerContext(jail.id + '-own', VMM, chroot_base=BASE); left.setup()",
        "JailerContext test-one-*-own",
    ),
    "a context of today": (
        "left = firecracker.JailerContext(jail.id + '-own', VMM, chroot_base=BASE); left.setup()",
        "JailerContext test-one-*-own",
    ),
    "a context of today that was dropped": (
        "firecracker.JailerContext(jail.id + '-own', VMM, chroot_base=BASE).setup(); left = None",
        "JailerContext test-one-*-own",
    ),
    "a process": ("left = subprocess.Popen(['sleep', '5'])", "process * (sleep)"),
    "a namespace": (
        "left = subprocess.run(['ip', 'netns', 'add', jail.id + '-x'])",
        "network namespace test-one-*-x",
    ),
    "a mount": (
        "os.mkdir(jail.root / 'm'); left = subprocess.run(['mount', '-t', 'tmpfs', 'none', jail.root / 'm'])",
        "*something is mounted there*",
    ),
}


@pytest.mark.parametrize("what", LEAKS)
def test_a_leak_fails_its_test_with_the_objects_name(
    guard: Guard, suite: Any, pytester: pytest.Pytester, what: str
) -> None:
    code, expected = LEAKS[what]
    result = suite(f"KEPT = []\ndef test_one(jail):\n    {code}\n    KEPT.append(left)\n\ndef test_two(jail): pass\n")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines([f"*::test_one leaked: {expected}*"])
    assert "test_two leaked" not in result.stdout.str()
    clean_up_after(what, guard, result)


def clean_up_after(what: str, guard: Guard, result: pytest.RunResult) -> None:
    import os
    import subprocess

    if what == "a process":
        pid = re.search(r"process (\d+) \(sleep\)", result.stdout.str())
        assert pid
        os.kill(int(pid.group(1)), 9)
    if what == "a namespace":
        for name in os.listdir("/run/netns"):
            if name.startswith("test-one-"):
                subprocess.run(["ip", "netns", "del", name], check=True)
    if what == "a mount":
        for mount in Path("/proc/mounts").read_text().splitlines():
            if str(guard.base) in mount:
                subprocess.run(["umount", mount.split(" ")[1]], check=True)
        assert guard.stockade("gc").returncode == 0


def test_the_report_of_a_failed_test_has_its_jails_log_and_state(suite: Any) -> None:
    result = suite(
        """
def test_one(jail):
    vm = jail.launch("args", "exit=3")
    assert vm.wait(20).code == 0
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*- stockade jail test-one-* -*", "jail test-one-*: exited, exit code 3", "output of the VMM:", "*args*"]
    )


def test_keep_keeps_a_failed_tests_jail_and_prints_how_to_enter(guard: Guard, suite: Any) -> None:
    tests = """
def test_one(jail):
    jail.launch("sleep")
    assert not "fails"

def test_two(jail):
    jail.launch("sleep")
"""
    for arguments in ([], ["-n", "2"]):
        result = suite(tests, "--stockade-keep", *arguments)
        result.assert_outcomes(failed=1, passed=1)
        kept = re.search(r"jail (test-one-\S+) runs as pid (\d+)", result.stdout.str())
        assert kept, result.stdout.str()
        id, pid = kept.group(1), int(kept.group(2))
        assert is_running(pid)
        result.stdout.fnmatch_lines(["*enter it: *nsenter --target*", f"*remove it: *stockade rm --force {id}"])
        assert guard.stockade("rm", "--force", id).returncode == 0
        assert not guard.base.exists()


def test_keep_keeps_no_jail_of_a_passed_test(guard: Guard, suite: Any) -> None:
    suite("def test_one(jail): jail.launch('sleep')\n", "--stockade-keep").assert_outcomes(passed=1)
    assert not guard.base.exists()


def test_the_plugin_works_with_4_workers(guard: Guard, suite: Any) -> None:
    result = suite(
        """
@pytest.mark.parametrize("number", range(16))
def test_many(jail, number):
    vm = jail.launch("sleep")
    assert vm.poll() is None

def test_that_leaks(jail):
    global left
    left = Jail(jail.id + "-own", VMM, chroot_base=BASE).create()
""",
        "-n",
        "4",
    )
    result.assert_outcomes(passed=17, errors=1)
    assert len(re.findall(r"::\w+ leaked", result.stdout.str())) >= 1
    assert set(re.findall(r"::(\w+) leaked", result.stdout.str())) == {"test_that_leaks"}
    assert not guard.base.exists()


@pytest.mark.parametrize("module", ["stockade", "stockade.firecracker"])
def test_a_context_that_is_cleaned_up_is_no_leak(guard: Guard, suite: Any, module: str) -> None:
    result = suite(
        f"""
from {module} import JailerContext as Context

def test_one(jail):
    context = Context(jail.id + "-own", VMM, chroot_base=BASE)
    context.setup()
    context.jailed_path(VMM, create=True, **{{"create_jail": True}} if hasattr(Context, "__del__") else {{}})
    context.cleanup()

def test_that_fails(jail):
    context = Context(jail.id + "-own", VMM, chroot_base=BASE)
    context.setup()
    assert not "fails"
"""
    )
    # A failed test has not leaked, and its context is removed.
    result.assert_outcomes(passed=1, failed=1)
    assert not guard.base.exists()


def test_a_suite_without_jails_is_unaffected(suite: Any) -> None:
    suite("def test_one(): pass\n").assert_outcomes(passed=1)


assert sys.version_info >= (3, 9)
