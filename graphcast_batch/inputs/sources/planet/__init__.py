"""Compute the weather of an invented Earth: ground, continents, waves, climate, air and surface."""
