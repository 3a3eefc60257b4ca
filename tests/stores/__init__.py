"""Tests of the stores of forecasts."""
