"""Where the time of scoring by the `paper` profile goes, with torch and timm alone."""
