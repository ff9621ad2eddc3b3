"""What other processes believe of a line that is, or is no longer, up."""

import json
from pathlib import Path

import pytest

from connectors.errors import Unavailable
from deploy.control import STATE_NAME, control, read_state, running_folder, write_state
from deploy.settings import Settings
from deploy.wiring import running_settings


def test_a_state_file_whose_process_is_gone_means_that_no_line_is_up(tmp_path: Path):
    """Its process id may belong to another program by now."""
    write_state(tmp_path, {"control": "nowhere"})
    assert read_state(tmp_path) is not None
    state = json.loads((tmp_path / STATE_NAME).read_text())
    stale = state | {"pid_started_s": state["pid_started_s"] - 3600}
    (tmp_path / STATE_NAME).write_text(json.dumps(stale))
    assert read_state(tmp_path) is None
    with pytest.raises(Unavailable, match="no line is up"):
        control(tmp_path, "status")


def test_the_state_file_is_for_its_user_only(tmp_path: Path):
    """Addresses in it may hold passwords."""
    write_state(tmp_path, {})
    assert (tmp_path / STATE_NAME).stat().st_mode & 0o077 == 0


def test_commands_find_the_demo_when_nothing_else_is_up(tmp_path: Path):
    """`hololine verdicts` works beside `hololine demo` without a setting."""
    demo = tmp_path / "demo" / "line"
    demo.mkdir(parents=True)
    assert running_folder(tmp_path) == tmp_path
    write_state(demo, {})
    assert running_folder(tmp_path) == demo
    write_state(tmp_path, {})
    assert running_folder(tmp_path) == tmp_path


def test_what_the_environment_names_is_used_before_what_the_running_line_names(tmp_path: Path):
    """Only what is missing comes from the line that is up."""
    write_state(tmp_path, {"addresses": {"kafka_bootstrap_servers": "a:1", "ray_address": "b:2"}})
    given = Settings(data_folder=tmp_path, kafka_bootstrap_servers="mine:9")
    found = running_settings(given)
    assert (found.kafka_bootstrap_servers, found.ray_address) == ("mine:9", "b:2")
