"""DISTRIBUTE: Cases become work for whoever is free."""
