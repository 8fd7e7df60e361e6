"""A microVM for tests, in the shape that Firecracker's framework has today.

The suite was written for the framework's own class JailerContext. Only the import is another.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional

from api import Api, wait_for

from stockade.firecracker import JailerContext, NetNs


class Microvm:
    """One VMM in a jail, with its files in the jail's own directory."""

    def __init__(
        self,
        microvm_id: str,
        fc_binary: Path,
        jailer_binary: Path,
        base: Path,
        netns: Optional[NetNs] = None,
        **jailer: Any,
    ) -> None:
        self.jailer_binary = jailer_binary
        self.jailer = JailerContext(microvm_id, fc_binary, chroot_base=base, netns=netns, **jailer)
        self.path = self.jailer.chroot_base_with_id()
        self.log_file = self.path / "fc.log"
        self.metrics_file = self.path / "fc.ndjson"
        self.drives: Dict[str, str] = {}
        self.foreground: Optional[subprocess.Popen[bytes]] = None

    def create_jailed_resource(self, path: Path, subdir: str = ".") -> str:
        """Places a file, and returns its path in the jail."""
        return self.jailer.jailed_path(path, create=True, subdir=subdir)

    def command(self) -> List[str]:
        """The command line of the jailer, with everything that it needs in place."""
        self.jailer.setup()
        self.path.mkdir(parents=True, exist_ok=True)
        for argument, file in (("log-path", self.log_file), ("metrics-path", self.metrics_file)):
            file.touch()
            self.jailer.extra_args[argument] = self.create_jailed_resource(file)
        return [str(self.jailer_binary), *self.jailer.construct_param_list()]

    def spawn(self) -> None:
        """Starts the VMM, and waits for its API."""
        command = self.command()
        if self.jailer.daemonize or self.jailer.new_pid_ns:
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=30)
        else:
            self.foreground = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for(self.api.is_up, "the API")

    def add_drive(self, drive_id: str, path: Path, is_read_only: bool = False) -> None:
        inside = self.create_jailed_resource(path, subdir="drives")
        self.api.put(f"/drives/{drive_id}", drive_id=drive_id, path_on_host=inside, is_read_only=is_read_only)
        self.drives[drive_id] = inside

    @property
    def api(self) -> Api:
        return Api(self.jailer.api_socket_path())

    @property
    def pid(self) -> int:
        return int(self.jailer.pid_file.read_text())

    def log(self) -> str:
        return self.log_file.read_text()

    def kill(self) -> None:
        """Ends the VMM and removes the jail."""
        self.jailer.cleanup()
        if self.foreground is not None:
            self.foreground.wait(30)
        assert not os.path.exists(self.path)
