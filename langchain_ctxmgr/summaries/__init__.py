"""Rolling summaries by a chat model: where they are kept, who makes them, and when."""
