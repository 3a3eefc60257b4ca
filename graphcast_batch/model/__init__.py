"""COMPUTE: a state and weights become a stream of frames."""
