"""What this machine reaches: the join alone, and the line from record to verdict."""
