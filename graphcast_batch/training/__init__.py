"""TRAIN: an archive and weights become better weights."""
