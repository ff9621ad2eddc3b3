"""Bytes and sockets <-> typed messages; imports nothing else of ours."""
