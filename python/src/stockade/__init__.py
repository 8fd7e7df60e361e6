"""Jails for microVM monitors, which leave no trace on the host.

:class:`JailerContext` is the class of Firecracker's test framework. :class:`Jail` is for new code, and
:class:`AsyncJail` is its counterpart for asyncio.
"""

from __future__ import annotations

from .aio import AsyncJail, AsyncVm
from .errors import (
    BadReceipt,
    InTheWay,
    InUse,
    InvalidSpec,
    LeftBehind,
    NoLog,
    NotFound,
    NotReady,
    PermissionDenied,
    StillRunning,
    StockadeError,
    StockadeWarning,
    SystemFailure,
)
from .jail import Jail, Placed
from .jailer_context import DEFAULT_CHROOT_PATH, DEFAULT_USOCKET_NAME, JailerContext
from .vm import Ended, ExitStatus, Vm

__all__ = [
    "DEFAULT_CHROOT_PATH",
    "DEFAULT_USOCKET_NAME",
    "AsyncJail",
    "AsyncVm",
    "BadReceipt",
    "Ended",
    "ExitStatus",
    "InTheWay",
    "InUse",
    "InvalidSpec",
    "Jail",
    "JailerContext",
    "LeftBehind",
    "NoLog",
    "NotFound",
    "NotReady",
    "PermissionDenied",
    "Placed",
    "StillRunning",
    "StockadeError",
    "StockadeWarning",
    "SystemFailure",
    "Vm",
]
