"""Compute forecasts with DeepMind's own package, to compare numbers and speed with it."""
