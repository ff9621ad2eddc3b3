"""Which processes a line is made of."""

from types import SimpleNamespace

import pytest

from connectors.errors import Poison
from connectors.line import Line
from deploy.line_file import line_template, parse_line
from deploy.running import _check_workers, _processes
from ingest.service import PARTITIONS_MAX


def line_of(partitions: int) -> Line:
    line = parse_line(line_template())
    return line.model_copy(
        update={"topics": line.topics.model_copy(update={"partitions": partitions})}
    )


def test_workers_are_numbered_and_come_after_the_scorer() -> None:
    """A worker's name is its identity in the group, so one that comes back has its partitions."""
    running = SimpleNamespace(settings=SimpleNamespace(plc_endpoint="opc.tcp://plc:4840"))
    roles = _processes(running, 2, virtual_plant=True)
    assert roles[:3] == [("scorer", "scorer"), ("worker", "worker-1"), ("worker", "worker-2")]
    assert roles[3:] == [(each, each) for each in ("archiver", "sink", "web", "plant", "source")]


def test_too_few_workers_for_the_partitions_are_refused_with_the_right_number() -> None:
    """Partitions that nobody can serve would wait in silence."""
    _check_workers(line_of(2 * PARTITIONS_MAX), 2)
    with pytest.raises(Poison, match="start 3 with --workers"):
        _check_workers(line_of(2 * PARTITIONS_MAX + 1), 2)
