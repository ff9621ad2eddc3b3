"""The in-memory twin of every port of the connectors: for tests, simulations and small trials."""

from connectors.memory.log import MemoryLog
from connectors.memory.others import MemoryPartEventSource, MemoryPayloadStore, MemoryVerdictSink

__all__ = ["MemoryLog", "MemoryPartEventSource", "MemoryPayloadStore", "MemoryVerdictSink"]
