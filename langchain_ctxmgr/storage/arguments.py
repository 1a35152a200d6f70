"""What a store's constructor must be given, checked before anything is opened."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import cast


def positive_time(name: str, value: object) -> timedelta:
    """`value`, if it is a duration longer than none.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise ValueError(f"{name} must be a positive timedelta, got {value!r}")
    return value


def positive_count(name: str, value: object) -> int:
    """`value`, if it is an integer from 1.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer from 1, got {value!r}")
    return value


def file_name(name: str, value: object) -> str:
    """`value` as text, if it names a file.

    Raises:
        ValueError: If it does not.
    """
    path = value
    if isinstance(value, os.PathLike):
        path = cast("object", os.fspath(cast("os.PathLike[str]", value)))
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"{name} must be a file's, got {value!r}")
    return path
