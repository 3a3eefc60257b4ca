"""DRAW: stored forecasts become pictures."""
