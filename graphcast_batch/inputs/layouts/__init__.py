"""Translate names, units, axes and grids of the known layouts to those of the model."""
