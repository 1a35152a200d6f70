"""Facts: what people state, folded into what is known, as of any date."""
