"""A microVM for tests, in the shape that Firecracker's framework had in May 2023.

The suite was written for the framework's own class JailerContext. Only the import is another, and
``share=True`` for a log that is not in the jail's directory.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, List, Optional

from api import Api, wait_for

from stockade import JailerContext


class Fifo:
    """A named pipe from which a test reads what a VMM has written since."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.text = ""

    def read(self) -> str:
        try:
            self.text += os.read(self._end, 65536).decode()
        except BlockingIOError:
            pass
        return self.text

    def close(self) -> None:
        os.close(self._end)


class Microvm:
    """One VMM in a jail, with its files in a directory of the session."""

    def __init__(
        self, session: Path, microvm_id: str, fc_binary: str, jailer_binary: str, base: str, **jailer: Any
    ) -> None:
        self.path = session / microvm_id
        self.path.mkdir(exist_ok=True)
        self.jailer_binary = jailer_binary
        self.jailer = JailerContext(microvm_id, fc_binary, chroot_base=base, **jailer)
        self.log_fifo: Optional[Fifo] = None
        self.foreground: Optional[subprocess.Popen[str]] = None

    def create_jailed_resource(self, path: Path, create_jail: bool = False) -> str:
        """Places a file, and returns its path in the jail."""
        return self.jailer.jailed_path(path, create=True, create_jail=create_jail)

    def spawn(self, use_ramdisk: bool = False) -> None:
        """Starts the jailer. The log goes to a named pipe that the test reads."""
        self.jailer.setup(use_ramdisk)
        if self.log_fifo is None:
            self.log_fifo = Fifo(self.path / "log_fifo")
        inside = self.create_jailed_resource(self.log_fifo.path, create_jail=True)
        self.jailer.extra_args["log-path"] = inside
        result = self.start_jailer()
        if result.returncode != 0:
            raise RuntimeError(result.stderr.strip())
        wait_for(self.api.is_up, "the API")

    def start_jailer(self) -> "subprocess.CompletedProcess[str]":
        """Runs the jailer. Without daemonize and a new pid namespace it becomes the VMM."""
        command: List[str] = [self.jailer_binary, *self.jailer.construct_param_list()]
        if self.jailer.daemonize or self.jailer.new_pid_ns:
            with open(self.path / "stderr", "w+") as errors:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, timeout=30
                )
                errors.seek(0)
                return subprocess.CompletedProcess(command, done.returncode, "", errors.read())
        self.foreground = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, text=True)
        return subprocess.CompletedProcess(command, 0, "", "")

    @property
    def api(self) -> Api:
        return Api(self.jailer.api_socket_path())

    @property
    def pid(self) -> int:
        if self.foreground is not None:
            return self.foreground.pid
        return int(Path(self.jailer.chroot_path(), f"{Path(self.jailer.exec_file).name}.pid").read_text())

    def kill(self) -> None:
        """Ends the VMM and removes the jail."""
        self.jailer.cleanup()
        if self.foreground is not None:
            self.foreground.wait(30)
            self.foreground = None
        if self.log_fifo is not None:
            self.log_fifo.close()
            self.log_fifo.path.unlink()
            self.log_fifo = None
