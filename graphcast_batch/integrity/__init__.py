"""Compare a store with its records, and repair what does not agree with them."""
