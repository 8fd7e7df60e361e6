"""The examples create namespaces and processes, which the project's other tests would find: they take turns."""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path
from typing import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    with open(Path(tempfile.gettempdir()) / "stockade-tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
