"""Stored forecasts and an archive become scores."""
