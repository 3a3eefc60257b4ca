"""MEASURE: programs, beside what limits them on a machine."""
