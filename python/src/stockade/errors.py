"""What can go wrong, as a hierarchy: catch what you can do something about."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

__all__ = [
    "BadReceipt",
    "InTheWay",
    "InUse",
    "InvalidSpec",
    "LeftBehind",
    "NotFound",
    "NotReady",
    "PermissionDenied",
    "StillRunning",
    "StockadeError",
    "SystemFailure",
]


class StockadeError(Exception):
    """Whatever stockade raises. Its text is one line for a person."""

    kind: str = "system"
    """What a program may want to tell apart, such as ``"in-use"``."""

    operation: Optional[str] = None
    """What was tried, such as ``"mount"``, if the host refused something."""

    path: Optional[Path] = None
    """On which path, if it was one."""

    errno: Optional[int] = None
    """What the kernel said, as a number of the module ``errno``."""


class InvalidSpec(StockadeError, ValueError):
    """What was asked for cannot be; nothing was made. The text names the argument."""

    kind = "invalid-spec"


class InUse(StockadeError):
    """The jail's id is in use."""

    kind = "in-use"


class InTheWay(StockadeError):
    """Something that stockade did not make is in the way."""

    kind = "in-the-way"


class PermissionDenied(StockadeError, PermissionError):
    """The caller lacks a privilege."""

    kind = "permission-denied"


class NotFound(StockadeError, FileNotFoundError):
    """Something that should be there is not."""

    kind = "not-found"


class BadReceipt(StockadeError):
    """A receipt is damaged or foreign."""

    kind = "bad-receipt"


class NotReady(StockadeError, TimeoutError):
    """The VMM ended, or did not get ready in time."""

    kind = "not-ready"


class StillRunning(StockadeError, TimeoutError):
    """The VMM still runs after the time that was given to it."""

    kind = "still-running"


class LeftBehind(StockadeError):
    """Something of a jail could not be removed. It stays on the receipt, for ``stockade gc``."""

    kind = "left-behind"


class SystemFailure(StockadeError, OSError):
    """Anything else that the kernel refused."""

    kind = "system"


_BY_KIND = {
    kind.kind: kind
    for kind in (InvalidSpec, InUse, InTheWay, PermissionDenied, NotFound, BadReceipt, NotReady, SystemFailure)
}


def _of(
    kind: str, text: str, operation: Optional[str], path: Optional[Path], errno: Optional[int]
) -> StockadeError:
    """The exception for an error of the compiled part."""
    error = _BY_KIND.get(kind, SystemFailure)(text)
    error.operation = operation
    error.path = path
    error.errno = errno
    return error
