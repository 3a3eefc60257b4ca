"""Download published files, and resume downloads that were interrupted."""
