"""The life of a jail from an interpreter in an odd state: the same effects as ordinarily, or one true line."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Dict, List, Optional, Tuple

import pytest
from conftest import GID, UID, Guard, program

LIFE = """
import json, sys
from stockade import Jail, JailerContext, StockadeError
name, vmm, base, report = sys.argv[1:]
found = {"left": []}
try:
    with Jail(name, vmm, uid=%d, gid=%d, chroot_base=base, cgroups=["pids.max=64"]) as jail:
        vm = jail.launch("inherited", "listen=/run/api.socket", "sleep")
        vm.wait_ready("/run/api.socket", timeout=20)
        found["inherited"] = json.loads(vm.log().splitlines()[0])
        found["stopped"] = str(vm.stop())
    context = JailerContext(name, vmm, %d, %d, base)
    context.setup()
    found["parameters"] = len(context.construct_param_list())
    context.cleanup()
except StockadeError as error:
    found["error"] = str(error)
with open(report, "w") as file:
    json.dump(found, file)
""" % (UID, GID, UID, GID)

ORDINARY: Dict[str, Any] = {}

HIDEPID = "mount -t proc -o hidepid=2,gid=12399 proc /proc"
SUBSET = "mount -t proc -o subset=pid proc /proc"
READ_ONLY_CGROUPS = (
    "for at in $(grep -E ' cgroup2? ' /proc/self/mounts | cut -d' ' -f2); do mount -o remount,bind,ro $at || exit 99; done"
)

# The oddities, a line of shell that prepares the mounts, and the error, without which the life has to succeed.
ROWS: List[Tuple[List[str], Optional[str], Optional[str]]] = [
    (["umask=0"], None, None),
    (["umask=0777"], None, None),
    (["signals-blocked"], None, None),
    (["signals-ignored"], None, None),
    (["closed=0", "closed=1", "closed=2"], None, None),
    (["descriptors=24"], None, None),
    (["real-time"], None, None),
    (["ambient"], None, None),
    (["no-ptrace"], None, None),
    ([], HIDEPID, None),
    (
        [],
        SUBSET,
        "cannot read '/proc/sys/kernel/random/boot_id': no such file or directory; mount a procfs at /proc, without the "
        "option subset=pid",
    ),
    ([], READ_ONLY_CGROUPS, "read-only file system"),
    (["user-namespace"], None, "operation not permitted; run stockade with CAP_SYS_ADMIN, in the initial user namespace"),
]


def life(guard: Guard, oddities: List[str], shell: Optional[str]) -> Dict[str, Any]:
    """What a whole life returns, in an interpreter of its own."""
    report = guard.directory / "report"
    report.unlink(missing_ok=True)
    arguments = [guard.named("vm"), str(guard.vmm), str(guard.base), str(report)]
    line = [str(program("odd-launcher")), *oddities, "--", sys.executable, "-c", LIFE, *arguments]
    if shell:
        line = ["unshare", "--mount", "sh", "-c", shell + ' && exec "$@"', "sh", *line]
    subprocess.run(line, check=True, stdin=subprocess.DEVNULL, timeout=60)
    found: Dict[str, Any] = json.loads(report.read_text())
    return found


@pytest.mark.parametrize(("oddities", "shell", "error"), ROWS, ids=lambda value: str(value)[:24])
def test_a_whole_life_from_an_odd_interpreter(
    guard: Guard, oddities: List[str], shell: Optional[str], error: Optional[str]
) -> None:
    if not ORDINARY:
        ORDINARY.update(life(guard, [], None))
        assert ORDINARY["stopped"] == "killed by signal 15" and ORDINARY["inherited"], ORDINARY
    found = life(guard, oddities, shell)
    if error is None:
        assert found == ORDINARY
    else:
        assert error in found["error"] and "\n" not in found["error"], found
    # What the odd interpreter could not remove is collected by an ordinary one.
    collected = guard.stockade("gc")
    assert collected.returncode == 0, collected
    assert not guard.base.exists() and not guard.state.exists()
