"""The parts of the synthetic planet: ground, continents, waves, climate, air, and the weather at the surface."""
