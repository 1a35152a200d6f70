"""Memory and context for LangChain and LangGraph when conversations outgrow the window."""
