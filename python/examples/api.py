"""The part of Firecracker's API that the example suites use, over its socket."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Callable, Tuple, Union

PATIENCE = 20.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Waits for the VMM, which is another process."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} does not happen")
        time.sleep(0.005)


class Api:
    """A client of one VMM."""

    def __init__(self, path: Union[str, Path]) -> None:
        self.path = str(path)

    def request(self, method: str, resource: str, **body: Any) -> Tuple[int, Any]:
        """Sends a request, and returns the status and the answer."""
        content = json.dumps(body).encode() if body else b""
        head = f"{method} {resource} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        directory, name = os.path.split(self.path)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            # A socket's path has 107 bytes at most, so it is reached by its directory.
            opened = os.open(directory, os.O_PATH)
            try:
                client.connect(f"/proc/self/fd/{opened}/{name}")
            finally:
                os.close(opened)
            client.sendall(head.encode() + content)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        status, _, text = answer.partition(b"\r\n\r\n")
        return int(status.split()[1]), json.loads(text) if text.strip() else None

    def put(self, resource: str, **body: Any) -> None:
        status, answer = self.request("PUT", resource, **body)
        if status != 204:
            raise RuntimeError(f"PUT {resource}: {status} {answer}")

    def is_up(self) -> bool:
        try:
            return self.request("GET", "/")[0] == 200
        except OSError:
            return False
