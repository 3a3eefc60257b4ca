"""WRITE: frames become one zarr store and a ledger of what is whole."""
