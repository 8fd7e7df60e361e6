"""A small suite of tests with jails, which CI runs.

The variable STOCKADE_EXAMPLE_VMM names the VMM. CI uses stockade's probe, whose arguments are actions; with Firecracker
they would be Firecracker's arguments.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from stockade import Jail, StillRunning

VMM = os.environ.get("STOCKADE_EXAMPLE_VMM", "")
pytestmark = [
    pytest.mark.skipif(not VMM, reason="STOCKADE_EXAMPLE_VMM is not set"),
    pytest.mark.jail(exec_file=VMM, chroot_base="/var/tmp/stockade-example", new_pid_ns=True),
]


def test_the_vmm_gets_ready(jail: Jail) -> None:
    vm = jail.launch("listen=/run/api.socket", "sleep")
    vm.wait_ready("run/api.socket")
    assert vm.poll() is None


def test_the_vmm_reads_its_image(jail: Jail, tmp_path: Any) -> None:
    image = tmp_path / "image"
    image.write_text("a guest")
    placed = jail.place(image, "drives/image", read_only=True)
    vm = jail.launch(f"read={placed}")
    assert vm.wait(timeout=20).code == 0
    assert "a guest" in vm.log()


def test_a_vmm_that_does_not_exit_is_stopped(jail: Jail) -> None:
    vm = jail.launch("sleep")
    with pytest.raises(StillRunning):
        vm.wait(timeout=0.05)
    assert vm.stop(grace=1).signal is not None


def test_two_vmms_side_by_side(jail_factory: Any) -> None:
    jails = [jail_factory(exec_file=VMM, chroot_base="/var/tmp/stockade-example") for _ in range(2)]
    assert len({jail.launch("sleep").pid for jail in jails}) == 2
