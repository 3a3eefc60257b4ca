"""Compute forecasts with GraphCast, from checkpoints in DeepMind's format."""
