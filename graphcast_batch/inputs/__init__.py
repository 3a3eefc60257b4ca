"""Read initial states and verifying analyses from files of every known layout."""
