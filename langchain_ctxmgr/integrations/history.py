"""`ContextChatMessageHistory`, for `RunnableWithMessageHistory`; see `chat_history`."""

from langchain_ctxmgr.chat_history import ContextChatMessageHistory

__all__ = ["ContextChatMessageHistory"]
