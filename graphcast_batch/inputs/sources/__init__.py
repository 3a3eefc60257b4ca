"""Provide the states that forecasts start from, and the truth that they are scored against."""
