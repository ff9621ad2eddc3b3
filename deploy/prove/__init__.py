"""`hololine prove`: the join's promise, put to the test with real servers and real faults."""
