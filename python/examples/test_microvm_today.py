"""An example suite over ``stockade.firecracker.JailerContext``, the class of today. CI runs it.

The variables STOCKADE_EXAMPLE_FIRECRACKER and STOCKADE_EXAMPLE_JAILER name the programs. CI uses a stand-in for
Firecracker, which has no guest, and stockade's drop-in.
"""

from __future__ import annotations

import gc
import json
import os
import secrets
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from api import wait_for
from microvm_today import Microvm
from turns import machine  # noqa: F401

from stockade.firecracker import NetNs

FIRECRACKER = Path(os.environ.get("STOCKADE_EXAMPLE_FIRECRACKER", ""))
JAILER = Path(os.environ.get("STOCKADE_EXAMPLE_JAILER", ""))
pytestmark = pytest.mark.skipif(
    not (FIRECRACKER.name and JAILER.name), reason="STOCKADE_EXAMPLE_FIRECRACKER is not set"
)

Factory = Callable[..., Microvm]


@pytest.fixture
def netns() -> Iterator[NetNs]:
    """A network namespace that belongs to the test, not to a microVM."""
    with NetNs(f"fc-{secrets.token_hex(6)}") as netns:
        yield netns
    assert not netns.path.exists()


@pytest.fixture
def microvm(tmp_path: Path) -> Iterator[Factory]:
    """Creates microVMs, each with an id of its own, and kills them after the test."""
    created: List[Microvm] = []

    def create(id: str = "", **jailer: Any) -> Microvm:
        microvm_id = id or f"fc-{secrets.token_hex(6)}"
        created.append(Microvm(microvm_id, FIRECRACKER, JAILER, tmp_path / "jailer", **jailer))
        return created[-1]

    yield create
    for vm in created:
        vm.kill()
    assert not (tmp_path / "jailer").exists(), "each jail is removed, and the base with the last"


def test_the_log_file_is_read_while_the_vmm_writes(microvm: Factory) -> None:
    vm = microvm()
    vm.spawn()
    wait_for(lambda: "listening on" in vm.log(), "a message in the log")
    vm.api.put("/actions", action_type="InstanceStart")
    wait_for(lambda: "The microVM started" in vm.log(), "the next message")
    assert (vm.jailer.chroot_path() / "fc.log").samefile(vm.log_file)


def test_the_metrics_file_is_read_by_the_caller(microvm: Factory) -> None:
    vm = microvm()
    vm.spawn()
    for _ in range(3):
        vm.api.put("/actions", action_type="FlushMetrics")
    requests = [json.loads(line)["requests"] for line in vm.metrics_file.read_text().splitlines()]
    assert requests == sorted(requests) and requests[-1] >= 3


def test_a_log_fifo_is_read_while_the_vmm_writes(microvm: Factory, tmp_path: Path) -> None:
    vm, fifo = microvm(), tmp_path / "log_fifo"
    os.mkfifo(fifo)
    vm.spawn()
    vm.api.put("/logger", log_path=vm.create_jailed_resource(fifo, "logs"))
    with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)) as reader:
        vm.api.put("/actions", action_type="InstanceStart")
        wait_for(lambda: "The microVM started" in reader.read(), "a message in the pipe")


def test_a_config_file_starts_the_microvm(microvm: Factory, tmp_path: Path) -> None:
    vm = microvm()
    kernel, config = tmp_path / "vmlinux", tmp_path / "vm.json"
    kernel.write_text("no kernel")
    config.write_text(json.dumps({"boot-source": {"kernel_image_path": "/boot/vmlinux"}}))
    vm.create_jailed_resource(kernel, "boot")
    vm.jailer.extra_args.update({"config-file": vm.create_jailed_resource(config), "api-sock": "api.socket"})
    vm.spawn()
    assert vm.api.request("GET", "/") == (200, {"id": vm.jailer.jailer_id, "state": "Running"})


def test_drives_are_used_and_the_image_keeps_its_owner(microvm: Factory, tmp_path: Path) -> None:
    image = tmp_path / "rootfs.ext4"
    image.write_bytes(b"\0" * 4096)
    os.chmod(image, 0o600)
    for uid in (20001, 20002):
        vm = microvm(uid=uid, gid=uid)
        vm.spawn()
        vm.add_drive("root", image)
        assert vm.drives == {"root": "/drives/rootfs.ext4"}
    assert os.stat(image).st_uid == 0, "others use it too"


def test_a_drive_made_for_the_microvm_is_shared(microvm: Factory) -> None:
    vm = microvm()
    vm.spawn()
    scratch = vm.path / "scratch.img"
    scratch.write_bytes(b"\0" * 4096)
    vm.add_drive("scratch", scratch)
    assert (vm.jailer.chroot_path() / "drives" / "scratch.img").samefile(scratch)


def test_the_vmm_is_in_the_network_namespace(microvm: Factory, netns: NetNs) -> None:
    vm = microvm(netns=netns)
    vm.spawn()
    command = f"{vm.jailer.netns.cmd_prefix()} readlink /proc/self/ns/net"
    seen = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout.strip()
    assert seen == os.readlink(f"/proc/{vm.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    vm.kill()
    assert netns.path.exists(), "the test's namespace outlives the microVM"


@pytest.mark.parametrize("options", [{}, {"new_pid_ns": True}, {"daemonize": False}])
def test_the_pid_is_the_vmms(microvm: Factory, options: Any) -> None:
    vm = microvm(**options)
    vm.spawn()
    assert Path(f"/proc/{vm.pid}/comm").read_text().strip() == FIRECRACKER.name[:15]
    assert vm.foreground is None or vm.pid == vm.foreground.pid


def test_a_restart_with_the_same_id(microvm: Factory) -> None:
    for _ in range(3):
        vm = microvm("fc-again-and-again")
        vm.spawn()
        vm.kill()


def test_the_command_line_outlives_its_context(microvm: Factory, netns: NetNs, tmp_path: Path) -> None:
    vm = Microvm("fc-dropped", FIRECRACKER, JAILER, tmp_path / "jailer", netns=netns)
    command, path = vm.command(), vm.path
    del vm
    gc.collect()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=30)
    wait_for(lambda: "listening on" in (path / "fc.log").read_text(), "a message in the log")
    microvm("fc-dropped").kill()
    assert not path.exists()


@pytest.mark.parametrize("jailer_id", ["", "with/slash", "x" * 65, "with space"])
def test_the_jailer_refuses_an_id(microvm: Factory, jailer_id: str) -> None:
    vm = microvm()
    vm.jailer.jailer_id = jailer_id
    vm.create_jailed_resource(FIRECRACKER)
    command = [str(JAILER), *vm.jailer.construct_param_list()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert result.returncode == 1 and "Invalid instance ID" in result.stderr


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("exec_file", None, "exec-file"),
        ("exec_file", Path("/missing/firecracker"), "/missing/firecracker"),
        ("uid", None, "uid"),
        ("uid", "nobody", "Invalid uid"),
        ("gid", -1, "gid"),
        ("cgroups", ["pids.max"], "Invalid format for cgroups"),
        ("resource_limits", ["no-such=1"], "no-such"),
        ("parent_cgroup", "../out", "Parent cgroup path is invalid"),
    ],
)
def test_the_jailer_refuses_an_argument(microvm: Factory, field: str, value: Any, message: str) -> None:
    vm = microvm()
    vm.jailer.setup()
    setattr(vm.jailer, field, value)
    command = [str(JAILER), *vm.jailer.construct_param_list()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert result.returncode == 1 and message in result.stderr, result.stderr
