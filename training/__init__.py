"""Parts -> bundles."""
