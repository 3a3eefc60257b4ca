"""Compute forecasts: the port of all models, and what they share."""
