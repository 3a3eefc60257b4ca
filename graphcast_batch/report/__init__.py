"""Write one HTML page about a store, to be opened from disk."""
