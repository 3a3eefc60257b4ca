"""Write files that are complete or absent, and share folders between processes of several machines."""
