"""How it gets shorter."""
