"""Compares whole lives through both classes JailerContext and through a class that runs programs.

    python benches/context.py JAILER [ROUNDS]

A life is: setup with a ramfs and a network namespace, one placed file, launch, cleanup. The classes run in turns of ten
lives on tmpfs (/dev/shm), with the same jailer and the same VMM. The VMM is a sleeping program of one page, so that
its copy does not count. The bench prints medians and their ratios, and exits with 1 if a ratio is above 0.2.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, List, Optional, Sequence

from stockade import JailerContext, firecracker

AT_MOST = 0.2
# The number of lives of one class in a turn.
BATCH = 10
UID, GID = 12345, 12346
SETTINGS = ["cpu.shares=100", "pids.max=50", "memory.limit_in_bytes=268435456"]


def run_cmd(command: str, check: bool = True) -> str:
    """Runs a shell command, as test frameworks do."""
    done = subprocess.run(command, shell=True, check=check, capture_output=True, text=True)
    return done.stdout


class ByPrograms:
    """A class as a test author would write it: every step runs a program."""

    def __init__(self, jailer_id: str, exec_file: str, base: str, cgroups: Optional[Sequence[str]]) -> None:
        self.id, self.exec_file, self.base, self.cgroups = jailer_id, exec_file, base, cgroups
        self.name = os.path.basename(exec_file)
        self.directory = f"{base}/{self.name}/{jailer_id}"
        self.ramfs = f"{self.directory}/root/ramfs"

    def setup(self) -> None:
        os.makedirs(self.ramfs, exist_ok=True)
        run_cmd(f"mount -t ramfs -o size=1M ramfs-{self.id} {self.ramfs}")
        run_cmd(f"chown {UID}:{GID} {self.ramfs}")
        if self.id not in run_cmd("ip netns list").split():
            run_cmd(f"ip netns add {self.id}")

    def place(self, file: str) -> None:
        target = f"{self.directory}/root{file}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(file, target)
        run_cmd(f"chown {UID}:{GID} {target}")

    def parameters(self) -> List[str]:
        parameters = ["--id", self.id, "--exec-file", self.exec_file, "--uid", str(UID), "--gid", str(GID)]
        parameters += ["--chroot-base-dir", self.base, "--netns", f"/var/run/netns/{self.id}", "--daemonize"]
        for setting in self.cgroups or []:
            parameters += ["--cgroup", setting]
        return parameters

    def cleanup(self) -> None:
        os.kill(int(Path(self.directory, "root", f"{self.name}.pid").read_text()), 9)
        run_cmd(f"umount {self.ramfs}")
        shutil.rmtree(self.directory, ignore_errors=True)
        run_cmd(f"ip netns del {self.id}")
        for controller in {setting.split(".")[0] for setting in self.cgroups or []}:
            cgroup = f"/sys/fs/cgroup/{controller}/{self.name}/{self.id}"
            while run_cmd(f"cat {cgroup}/tasks"):
                time.sleep(0.001)
            run_cmd(f"find {cgroup} -depth -type d -exec rmdir {{}} \\;", check=False)


class ByContext(JailerContext):
    def setup(self) -> None:  # type: ignore[override]
        super().setup(use_ramdisk=True)

    def place(self, file: str) -> None:
        self.copy_into_root(file)

    def parameters(self) -> List[str]:
        return self.construct_param_list()


class ByContextOfToday(firecracker.JailerContext):
    """With a namespace of its own, which today's class leaves to the caller."""

    def setup(self) -> None:  # type: ignore[override]
        self.netns = firecracker.NetNs(self.jailer_id)
        self.netns.setup()
        super().setup(use_ramdisk=True)

    def place(self, file: str) -> None:
        self.jailed_path(file, create=True, subdir=os.path.dirname(file))

    def parameters(self) -> List[str]:
        return self.construct_param_list()

    def cleanup(self) -> None:
        super().cleanup()
        self.netns.cleanup()


def life(jail: Any, jailer: str, file: str) -> List[float]:
    """The time of a life and of its launch, in seconds."""
    start = time.perf_counter()
    jail.setup()
    jail.place(file)
    before = time.perf_counter()
    subprocess.run([jailer, *jail.parameters()], check=True, stdin=subprocess.DEVNULL)
    after = time.perf_counter()
    jail.cleanup()
    return [time.perf_counter() - start, after - before]


def compare(jailer: str, vmm: str, base: Path, rounds: int, cgroups: Optional[List[str]]) -> bool:
    image = base / "image"
    image.write_bytes(b"x" * 65536)
    jails = str(base / "jails")
    classes: List[Callable[[str], Any]] = [
        lambda id: ByContext(id, vmm, UID, GID, jails, cgroups=cgroups),
        lambda id: ByContextOfToday(id, vmm, UID, GID, jails, cgroups=cgroups),
        lambda id: ByPrograms(id, vmm, jails, cgroups),
    ]
    times: List[List[List[float]]] = [[], [], []]
    for batch in range(0, rounds, BATCH):
        for which, create in enumerate(classes):
            # The kernel removes network namespaces in the background; the pause keeps that out of the next turn.
            time.sleep(0.3)
            ids = [f"bench-{os.getpid()}-{number}" for number in range(batch, batch + BATCH)]
            times[which] += [life(create(id), jailer, str(image)) for id in ids]
    *contexts, programs = ([statistics.median(part) for part in zip(*lives)] for lives in times)
    with_settings = f"{len(cgroups)} cgroup settings" if cgroups else "no cgroup setting"
    print(f"{with_settings}: by programs {programs[0] * 1e3:.2f} ms (launch {programs[1] * 1e3:.2f})")
    for name, context in zip(("stockade", "stockade.firecracker"), contexts):
        print(
            f"  {name}.JailerContext {context[0] * 1e3:.2f} ms (launch {context[1] * 1e3:.2f}), "
            f"ratio {context[0] / programs[0]:.3f}"
        )
    return all(context[0] / programs[0] <= AT_MOST for context in contexts)


SLEEPER = {
    "x86_64": "mov $34, %eax; syscall; jmp _start",  # pause
    "aarch64": "mov x0, #0; mov x1, #0; mov x2, #0; mov x3, #0; mov x8, #73; svc #0; b _start",  # ppoll
}


def build_vmm(directory: Path) -> str:
    vmm = directory / "vmm-of-bench"
    source = ".globl _start\n_start: " + SLEEPER[os.uname().machine] + "\n"
    flags = ["-nostdlib", "-static", "-Wl,--build-id=none"]
    subprocess.run(["gcc", "-x", "assembler", "-", *flags, "-o", vmm], input=source, text=True, check=True)
    return str(vmm)


def main(jailer: str, rounds: str = "50") -> int:
    base = Path(tempfile.mkdtemp(prefix="stockade-bench-", dir="/dev/shm"))
    os.environ["STOCKADE_STATE_DIR"] = str(base / "state")
    try:
        vmm = build_vmm(base)
        results = [compare(jailer, vmm, base, int(rounds), cgroups) for cgroups in (None, SETTINGS)]
    finally:
        shutil.rmtree(base)
        for controller in {setting.split(".")[0] for setting in SETTINGS}:
            parent = Path("/sys/fs/cgroup", controller, "vmm-of-bench")
            if parent.is_dir():
                parent.rmdir()
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
