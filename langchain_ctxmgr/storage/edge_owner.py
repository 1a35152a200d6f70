"""Who owns an Edge folder: one store, in one process.

Edge has a lock of its own, but a second opener is refused only after it has shortened
files that the owner is writing, and the owner's next flush then fails. So the folder is
locked here before Edge is asked.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from langchain_ctxmgr.errors import ShardInUseError

LOCK_FILE: Final = "owner.lock"


class Ownership:
    """The right to open what is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: int | None = None

    def take(self) -> None:
        """Own the folder, which exists, until `give_up`; again does nothing.

        Raises:
            ShardInUseError: If another process, or another store in this one, owns it.
        """
        if self._file is not None:
            return
        file = os.open(self._folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(file)
            # A lock on a file that its owner removed meanwhile keeps nobody out.
            if not os.path.samestat(os.fstat(file), (self._folder / LOCK_FILE).stat()):
                raise FileNotFoundError(LOCK_FILE)
        except OSError as error:
            os.close(file)
            raise ShardInUseError(
                f"{self._folder} is in use by another process, or open already in this one; "
                "one process owns a Qdrant Edge folder: to share vectors between "
                "processes use server mode (a Qdrant server)"
            ) from error
        self._file = file

    def give_up(self) -> None:
        """Let others own the folder."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


if os.name == "nt":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: int) -> None:
        # Held by the open file, not by its number: a child that closes its copy unlocks nothing.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
