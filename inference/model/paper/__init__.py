"""The `paper` profile: CMDIAD (arXiv 2405.13571), faithful to its authors' code, and fast."""
