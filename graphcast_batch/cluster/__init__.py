"""Distribute the Cases of a run over worker processes on one machine or a cluster."""
