"""Records -> joined evidence."""
