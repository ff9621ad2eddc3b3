"""OPC UA: part events in, verdicts out, on scalar nodes; the library is imported nowhere else."""
