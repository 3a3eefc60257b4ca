"""Draw stored forecasts and their scores."""
