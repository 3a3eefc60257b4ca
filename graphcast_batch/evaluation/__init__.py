"""Score stored forecasts against an archive."""
