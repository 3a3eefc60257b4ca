"""Tell weather from what cannot be weather: limits, places, sunlight, statistics."""
