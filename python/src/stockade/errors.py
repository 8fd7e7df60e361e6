"""The hierarchy of exceptions."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from ._checks import printable

__all__ = [
    "BadReceipt",
    "InTheWay",
    "InUse",
    "InvalidSpec",
    "LeftBehind",
    "NotFound",
    "NoLog",
    "NotReady",
    "PermissionDenied",
    "StillRunning",
    "StockadeError",
    "StockadeWarning",
    "SystemFailure",
]


class StockadeError(Exception):
    """The base class of all exceptions of this package. The text is one line."""

    kind: str = "system"
    """The kind of error for programs, such as ``"in-use"``."""

    operation: Optional[str] = None
    """The operation that the host refused, such as ``"mount"``; None for other errors."""

    path: Optional[Path] = None
    """The path of the operation; None if it has none."""

    errno: Optional[int] = None
    """The kernel's error number, as in the module ``errno``; None if it is not the kernel's error."""


class StockadeWarning(UserWarning):
    """A fact about a jail that differs from what its creator may expect, for example that a device is missing."""


class InvalidSpec(StockadeError, ValueError):
    """An argument is invalid, and nothing was created. The text names the argument."""

    kind = "invalid-spec"


class InUse(StockadeError):
    """The jail's id is in use."""

    kind = "in-use"


class InTheWay(StockadeError):
    """A foreign object has the name that the jail needs."""

    kind = "in-the-way"


class PermissionDenied(StockadeError, PermissionError):
    """The caller lacks a privilege."""

    kind = "permission-denied"


class NotFound(StockadeError, FileNotFoundError):
    """A required object does not exist."""

    kind = "not-found"


class BadReceipt(StockadeError):
    """A receipt is corrupt."""

    kind = "bad-receipt"


class NotReady(StockadeError, TimeoutError):
    """The VMM exited, or was not ready in time."""

    kind = "not-ready"


class NoLog(StockadeError):
    """The VMM has no log. The text contains the reason."""

    kind = "no-log"


class StillRunning(StockadeError, TimeoutError):
    """The VMM still runs after the timeout."""

    kind = "still-running"


class LeftBehind(StockadeError):
    """A part of a jail could not be removed. It remains on the receipt for ``stockade gc``."""

    kind = "left-behind"


class SystemFailure(StockadeError, OSError):
    """Any other error of the kernel."""

    kind = "system"


_BY_KIND = {
    kind.kind: kind
    for kind in (InvalidSpec, InUse, InTheWay, PermissionDenied, NotFound, BadReceipt, NotReady, SystemFailure)
}


def _of(
    kind: str, text: str, operation: Optional[str], path: Optional[Path], errno: Optional[int]
) -> StockadeError:
    """Creates the exception for an error of the compiled part."""
    error = _BY_KIND.get(kind, SystemFailure)(printable(text))
    error.operation = operation
    error.path = path
    error.errno = errno
    return error
