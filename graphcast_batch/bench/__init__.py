"""Measure the speed of parts of the program beside what limits them on a machine."""
