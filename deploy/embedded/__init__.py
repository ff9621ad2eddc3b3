"""Kafka, Redis, Ray and a payload folder on the loopback address, started and stopped with us."""

from deploy.embedded.server import StackFailed
from deploy.embedded.stack import Addresses, EmbeddedStack

__all__ = ["Addresses", "EmbeddedStack", "StackFailed"]
