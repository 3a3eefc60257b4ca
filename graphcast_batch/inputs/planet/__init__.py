"""The parts of the synthetic planet: ground, waves, climate, air, and the weather at the surface."""
