"""The messages as JSON Schema and AsyncAPI, for people whose program is not in Python."""
