"""The live page of a line, fed by the verdict topic alone."""
