"""The directory of receipts."""

from __future__ import annotations

import os


def default_state_dir() -> str:
    """The state directory: the value of ``STOCKADE_STATE_DIR``, or the command's default."""
    return os.environ.get("STOCKADE_STATE_DIR") or "/var/lib/stockade"
