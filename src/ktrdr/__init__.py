"""ktrdr: research platform for neuro-fuzzy trading strategies."""
