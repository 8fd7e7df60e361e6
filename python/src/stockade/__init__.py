"""Jails for microVM monitors that leave no trace.

:class:`JailerContext` is the class of Firecracker's test framework. :class:`Jail` is what to use in new code.
"""

from __future__ import annotations

from .errors import (
    BadReceipt,
    InTheWay,
    InUse,
    InvalidSpec,
    LeftBehind,
    NotFound,
    NotReady,
    PermissionDenied,
    StillRunning,
    StockadeError,
    SystemFailure,
)
from .jailer_context import DEFAULT_CHROOT_PATH, DEFAULT_USOCKET_NAME, JailerContext

__all__ = [
    "DEFAULT_CHROOT_PATH",
    "DEFAULT_USOCKET_NAME",
    "BadReceipt",
    "InTheWay",
    "InUse",
    "InvalidSpec",
    "JailerContext",
    "LeftBehind",
    "NotFound",
    "NotReady",
    "PermissionDenied",
    "StillRunning",
    "StockadeError",
    "SystemFailure",
]
