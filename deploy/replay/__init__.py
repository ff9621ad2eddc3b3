"""What became of a part, derived again from log, payloads and bundles; nothing is written."""
