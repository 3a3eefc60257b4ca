"""Refuse inputs that cannot be fields of the Earth's weather."""
