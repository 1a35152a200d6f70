"""The few errors that LangChain and Python lack.

A wrong argument is a `ValueError`; a provider's own error passes through.
"""

from __future__ import annotations

from langchain_core.exceptions import ContextOverflowError as _ContextOverflowError


class ContextOverflowError(_ContextOverflowError, ValueError):
    """What must be sent does not fit: system text, tools and the current turn.

    Also catchable as LangChain's own `ContextOverflowError`.
    """

    def __init__(self, *, needed_tokens: int, max_tokens: int, what: str) -> None:
        super().__init__(
            f"{what} needs {needed_tokens} tokens and max_tokens is {max_tokens}; "
            f"raise max_tokens to at least {needed_tokens}"
        )
        self.needed_tokens = needed_tokens
        self.max_tokens = max_tokens
        self.what = what


class StorageError(RuntimeError):
    """A store cannot be used as asked; the message says how to mend it."""


class LogError(StorageError):
    """The message log cannot be reached or used as a whole; nothing was recorded."""


class ReadOnlyLogError(LogError):
    """The message log can be read and not written: no right to, or no room."""


class ShardInUseError(StorageError):
    """Another process owns the Qdrant Edge folder."""


class DamagedIndexError(StorageError):
    """The vectors cannot be read; the log holds everything they were made from."""


class SummaryError(RuntimeError):
    """A chat model's answer cannot be used as a summary; the one before it stays."""


class NoAnswerError(SummaryError):
    """A chat model gave no answer at all, in its time or ever."""


class UnknownModelError(LookupError):
    """Nothing is known of a model's window; the message says how to register it."""
