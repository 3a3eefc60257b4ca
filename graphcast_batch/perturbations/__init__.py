"""Perturb initial states: each perturbed state follows from its number, a seed and the initial time alone."""
