"""Checks of arguments. Each error begins with the argument's name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Iterable, Iterator, Optional


def printable(text: str) -> str:
    """Text that a jail can influence, without characters that act on a terminal. Lines remain."""
    return "".join(
        letter if letter == "\n" or letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def is_component(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & {"/", "\0"}


def path_of(argument: str, value: Any) -> Path:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{argument} must be a str or a path, not {type(value).__name__}")
    return Path(value)


def text_of(argument: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a str, not {type(value).__name__}")
    return value


def number_of(argument: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} must be an int, not {type(value).__name__}")
    if not 0 <= value < 2**32 - 1:
        raise ValueError(f"{argument} must be between 0 and 4294967294, not {value}")
    return value


def owner_of(argument: str, value: Any) -> int:
    """A uid or gid; 0 for a number that is none, which the jailer refuses."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} must be an int, not {type(value).__name__}")
    return value if 0 <= value < 2**32 - 1 else 0


def each(argument: str, values: Any) -> Iterator[Any]:
    if values is None:
        return iter(())
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{argument} must be a list of str, not {type(values).__name__}")
    return iter(values)


def flag_of(argument: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{argument} must be a bool, not {type(value).__name__}")
    return value


def size_of(argument: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} must be an int, not {type(value).__name__}")
    if not 0 <= value < 2**63:
        raise ValueError(f"{argument} must be a number of bytes, not {value}")
    return value


def account_of(argument: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} must be an int or a str, not {type(value).__name__}")
    return str(number_of(argument, value))


def size_text_of(argument: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} must be an int or a str, not {type(value).__name__}")
    return str(size_of(argument, value))


def descriptor_of(argument: str, stream: Any) -> Optional[int]:
    if stream is None:
        return None
    number = stream if isinstance(stream, int) and not isinstance(stream, bool) else None
    if number is None and not hasattr(stream, "fileno"):
        raise TypeError(f"{argument} must be a file or a file descriptor, not {type(stream).__name__}")
    return stream.fileno() if number is None else number
