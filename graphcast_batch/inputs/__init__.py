"""READ: files of every layout become checked states."""
