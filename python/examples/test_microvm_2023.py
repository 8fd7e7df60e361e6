"""An example suite over ``stockade.JailerContext``, the class of May 2023. CI runs it.

The variables STOCKADE_EXAMPLE_FIRECRACKER and STOCKADE_EXAMPLE_JAILER name the programs. CI uses a stand-in for
Firecracker, which has no guest, and stockade's drop-in.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from api import wait_for
from microvm_2023 import Microvm
from turns import machine  # noqa: F401

from stockade import InvalidSpec

FIRECRACKER = os.environ.get("STOCKADE_EXAMPLE_FIRECRACKER", "")
JAILER = os.environ.get("STOCKADE_EXAMPLE_JAILER", "")
pytestmark = pytest.mark.skipif(not (FIRECRACKER and JAILER), reason="STOCKADE_EXAMPLE_FIRECRACKER is not set")

Factory = Callable[..., Microvm]


@pytest.fixture
def microvm(tmp_path: Path) -> Iterator[Factory]:
    """Creates microVMs, each with an id of its own, and kills them after the test."""
    created: List[Microvm] = []

    def create(id: str = "", **jailer: Any) -> Microvm:
        microvm_id = id or f"fc-{secrets.token_hex(6)}"
        created.append(Microvm(tmp_path, microvm_id, FIRECRACKER, JAILER, str(tmp_path / "jailer"), **jailer))
        return created[-1]

    yield create
    for vm in created:
        vm.kill()
        vm.jailer.netns = None
    assert not (tmp_path / "jailer").exists(), "each jail is removed, and the base with the last"


def test_the_log_fifo_is_read_while_the_vmm_writes(microvm: Factory) -> None:
    vm = microvm()
    vm.spawn()
    assert vm.log_fifo is not None
    fifo = vm.log_fifo
    wait_for(lambda: "listening on" in fifo.read(), "a message in the log")
    vm.api.put("/actions", action_type="InstanceStart")
    wait_for(lambda: "The microVM started" in fifo.read(), "the next message")


def test_a_log_file_and_a_metrics_file_are_read_by_the_caller(microvm: Factory) -> None:
    vm = microvm()
    vm.jailer.setup()
    # Files of the session, not in the jail's own directory: `share` declares that they were created for this jail.
    log, metrics = vm.path / "log", vm.path / "metrics"
    for file in (log, metrics):
        file.touch()
        assert vm.jailer.jailed_path(file, create=True, create_jail=True, share=True) == f"/{file.name}"
    vm.spawn()
    vm.api.put("/logger", log_path="/log")
    vm.api.put("/metrics", metrics_path="/metrics")
    vm.api.put("/actions", action_type="FlushMetrics")
    assert "PUT request on" in log.read_text()
    requests = [json.loads(line)["requests"] for line in metrics.read_text().splitlines()]
    assert requests == sorted(requests) and requests[-1] >= 3


def test_a_config_file_starts_the_microvm(microvm: Factory, tmp_path: Path) -> None:
    vm = microvm()
    kernel, config = tmp_path / "vmlinux", tmp_path / "vm.json"
    kernel.write_text("no kernel")
    config.write_text(json.dumps({"boot-source": {"kernel_image_path": "/vmlinux"}}))
    for file in (kernel, config):
        vm.create_jailed_resource(file, create_jail=True)
    vm.jailer.extra_args.update({"config-file": "/vm.json", "api-sock": "api.socket"})
    vm.spawn()
    assert vm.api.request("GET", "/") == (200, {"id": vm.jailer.jailer_id, "state": "Running"})


def test_drives_are_used_and_the_image_keeps_its_owner(microvm: Factory, tmp_path: Path) -> None:
    image = tmp_path / "rootfs.ext4"
    image.write_bytes(b"\0" * 4096)
    os.chmod(image, 0o600)
    vms = [microvm(uid=uid, gid=uid) for uid in (20001, 20002)]
    for vm in vms:
        vm.spawn()
        inside = vm.create_jailed_resource(image)
        vm.api.put("/drives/root", drive_id="root", path_on_host=inside, is_read_only=False)
        assert os.stat(vm.jailer.chroot_path() + inside).st_uid == vm.jailer.uid
    assert os.stat(image).st_uid == 0, "others use it too"
    status, answer = vms[0].api.request("PUT", "/drives/x", drive_id="x", path_on_host="/missing")
    assert status == 400 and "/missing" in answer["fault_message"]


def test_the_vmm_is_in_the_network_namespace(microvm: Factory) -> None:
    vm = microvm()
    vm.spawn()
    command = f"{vm.jailer.netns_cmd_prefix()}readlink /proc/self/ns/net"
    seen = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout.strip()
    assert seen == os.readlink(f"/proc/{vm.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    vm.kill()
    assert not os.path.exists(vm.jailer.netns_file_path() or "")


def test_a_ramdisk_belongs_to_the_vmm(microvm: Factory) -> None:
    vm = microvm()
    vm.spawn(use_ramdisk=True)
    assert vm.jailer.uses_ramfs and os.path.ismount(vm.jailer.chroot_ramfs_path())


@pytest.mark.parametrize("options", [{}, {"new_pid_ns": True}, {"daemonize": False}])
def test_the_pid_is_the_vmms(microvm: Factory, options: Any) -> None:
    vm = microvm(**options)
    vm.spawn()
    assert Path(f"/proc/{vm.pid}/comm").read_text().strip() == Path(FIRECRACKER).name[:15]
    assert f"Uid:\t{vm.jailer.uid}\t" in Path(f"/proc/{vm.pid}/status").read_text()


def test_a_restart_with_the_same_id(microvm: Factory) -> None:
    for _ in range(3):
        vm = microvm("fc-again-and-again")
        vm.spawn()
        assert vm.api.is_up()
        vm.kill()


@pytest.mark.parametrize("jailer_id", ["", "with/slash", "x" * 65, "with space"])
def test_the_jailer_refuses_an_id(microvm: Factory, jailer_id: str) -> None:
    vm = microvm()
    vm.jailer.jailer_id = jailer_id
    # The files are prepared as for any id: the program under test is the jailer.
    vm.create_jailed_resource(Path(FIRECRACKER), create_jail=True)
    result = vm.start_jailer()
    assert result.returncode == 1 and "Invalid instance ID" in result.stderr


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("jailer_id", None, "id"),
        ("exec_file", None, "exec-file"),
        ("exec_file", "/missing/firecracker", "/missing/firecracker"),
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
    result = vm.start_jailer()
    assert result.returncode == 1 and message in result.stderr, result.stderr


def test_a_socket_can_be_shared_but_not_copied(microvm: Factory, tmp_path: Path) -> None:
    vm = microvm()
    vm.spawn()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(vm.path / "vsock"))
        inside = vm.create_jailed_resource(vm.path / "vsock")
        assert os.path.samefile(vm.path / "vsock", vm.jailer.chroot_path() + inside)
        with pytest.raises(InvalidSpec, match="is a socket, which cannot be copied"):
            vm.jailer.copy_into_root(str(vm.path / "vsock"))
