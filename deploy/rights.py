"""What each process may do on brokers and Redis: least rights, as one table and as commands.

`deploy/SECURITY.md` prints the commands; the tests give servers exactly this table and run a line.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

Resource = Literal["topic", "group", "transactional-id"]
SERVERS: Final = "$KAFKA_BOOTSTRAP_SERVERS"


@dataclass(frozen=True, slots=True)
class Right:
    """Operations on one thing of a line: what its name is after ``<site>.<area>.<line>.``.

    Read and Write hold Describe. Idempotent writing needs nothing more than Write (Kafka >= 2.8).
    """

    resource: Resource
    name: str
    operations: tuple[str, ...]
    prefixed: bool = False
    """`name` is how the names begin."""

    def full_name(self, line: str) -> str:
        """The name on the brokers, of the line called `line`."""
        return f"{line}.{self.name}"


def _topic(entity: str, *operations: str) -> Right:
    return Right("topic", f"{entity}.v1", operations)


RIGHTS: Final[Mapping[str, tuple[Right, ...]]] = {
    "worker": (
        _topic("records", "Read", "Write"),  # it writes ticks and policy changes
        _topic("verdicts", "Read", "Write"),
        _topic("dead-letters", "Write"),
        _topic("policies", "Read"),
        Right("group", "worker", ("Read",)),
        Right("transactional-id", "p", ("Write",), prefixed=True),
    ),
    "source": (_topic("records", "Write"), _topic("dead-letters", "Write")),
    "station": (_topic("records", "Write"),),
    "lab": (_topic("nearline", "Write"),),
    "sink": (_topic("records", "Read"), _topic("verdicts", "Read")),
    "web": (
        _topic("verdicts", "Read"),
        _topic("dead-letters", "Read"),
        _topic("plant-truth", "Read"),
    ),
    "mes": (_topic("verdicts", "Read"),),
    "archiver": (
        _topic("verdicts", "Read"),
        _topic("nearline", "Read"),
        _topic("dead-letters", "Write"),
    ),
    "plant": (
        _topic("records", "Write"),
        _topic("nearline", "Write"),
        _topic("plant-truth", "Write"),
    ),
    "operator": (
        Right("topic", "", ("Create", "AlterConfigs", "Read"), prefixed=True),
        _topic("policies", "Write"),
        _topic("records", "Write"),  # what it takes from the dead letters and sends again
    ),
}
"""Rights on the brokers by role. Only an operator writes policies."""

REDIS_COMMANDS: Final = (
    *("info", "script|load", "evalsha", "del", "exists"),
    *("hget", "hmget", "hset", "hdel", "hkeys", "hlen", "hincrby"),
    *("zadd", "zrem", "zcard", "zscore", "zmscore", "zrange", "zrangebyscore"),
    *("zremrangebyscore", "zunionstore"),
)
"""What a worker's session asks of Redis, itself and from its scripts."""


def kafka_commands(role: str, line: str, user: str) -> Iterator[str]:
    """The commands of Apache Kafka that give `user` the rights of `role` on the line `line`."""
    for right in RIGHTS[role]:
        operations = " ".join(f"--operation {each}" for each in right.operations)
        kind = " --resource-pattern-type prefixed" if right.prefixed else ""
        yield (
            f"kafka-acls.sh --bootstrap-server {SERVERS} --command-config admin.properties --add "
            f"--allow-principal User:{user} {operations} --{right.resource} "
            f"{right.full_name(line)}{kind}"
        )


def redis_rule(line: str) -> tuple[str, ...]:
    """The rule of an ACL user of Redis for the workers of the line `line`, without passwords."""
    commands = (f"+{command}" for command in REDIS_COMMANDS)
    return ("on", "resetkeys", "resetchannels", f"~hololine:{{{line}.p*}}:*", "-@all", *commands)
