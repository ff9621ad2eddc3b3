"""What other processes believe of a line that is, or is no longer, up."""

import json
from pathlib import Path

import pytest

from connectors.errors import Poison, Unavailable
from connectors.line import Line
from deploy.control import STATE_NAME, control, read_state, running_folder, write_state
from deploy.running import RunningLine, _addresses, bring_up
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


def test_an_address_whose_password_the_state_does_not_keep_has_to_be_set(tmp_path: Path):
    """Never half an address; Redis, which no command asks, is left out."""
    addresses = {"redis_url": "redis://u:***@h:1/0", "payloads_url": "s3://key:***@bucket"}
    write_state(tmp_path, {"addresses": addresses})
    with pytest.raises(Poison, match=r"HOLOLINE_PAYLOADS_URL.*set it here"):
        running_settings(Settings(data_folder=tmp_path))
    own = Settings(data_folder=tmp_path, payloads_url="s3://key:s3cret@bucket")
    assert running_settings(own).redis is None


def test_the_state_of_a_line_keeps_no_password(tmp_path: Path, small_line: Line):
    """It tells addresses; who may use them is the environment's to say."""
    settings = Settings(
        data_folder=tmp_path,
        redis_url="rediss://u:s3cret@h:1/0",
        payloads_url="s3://key:s3cret@bucket",
        archive_url="s3://key:s3cret@bucket/archive",
        kafka_protocol="SASL_SSL",
        kafka_username="u",
        kafka_password="s3cret",
    )
    up = RunningLine(
        line=small_line,
        line_path=tmp_path,
        settings=settings,
        stack=None,  # type: ignore[arg-type]
        supervisor=None,  # type: ignore[arg-type]
    )
    told = _addresses(up)
    assert told["redis_url"] == "rediss://u:***@h:1/0"
    assert "s3cret" not in json.dumps(told)


def test_an_embedded_broker_is_not_taken_for_a_secured_one(tmp_path: Path):
    """Asked to speak TLS and not told with whom, a line does not start in the open instead."""
    settings = Settings(
        data_folder=tmp_path / "line",
        kafka_protocol="SASL_SSL",
        kafka_username="u",
        kafka_password="p",
    )
    line_path = Path(__file__).parents[3] / "deploy" / "line.template.yaml"
    with (
        pytest.raises(Poison, match=r"HOLOLINE_KAFKA_PROTOCOL.*KAFKA_BOOTSTRAP_SERVERS"),
        bring_up(settings, line_path, on_progress=print),
    ):
        pass
    assert not settings.data_folder.exists()
