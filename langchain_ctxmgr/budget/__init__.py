"""How much fits: tokens, models, prices, shares."""
