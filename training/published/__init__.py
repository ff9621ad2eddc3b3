"""Published data sets as they are published, and small synthetic ones in their layouts."""
