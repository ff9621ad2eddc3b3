"""A whole line brought up on this machine: the servers that are not given, and every process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connectors.errors import Poison, Unavailable
from connectors.line import Line
from deploy.control import Json
from deploy.embedded import Addresses, EmbeddedStack
from deploy.embedded.ray_server import CLIENT_ENV
from deploy.embedded.server import free_port
from deploy.line_file import load_line
from deploy.settings import Settings, masked
from deploy.supervisor import (
    WORKER,
    Supervisor,
    refuse_second,
    signals_interrupt,
    signals_wait,
)
from deploy.wiring import ensure_line_topics, make_log, make_registry
from ingest.service import PARTITIONS_MAX

READY_TIMEOUT_S: Final = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningLine:
    """A line that is up. `settings` name every server, embedded or not."""

    line: Line
    line_path: Path
    settings: Settings
    stack: EmbeddedStack
    supervisor: Supervisor

    @property
    def page(self) -> str:
        """Address of the live page."""
        return f"http://127.0.0.1:{self.settings.web_port}/"

    @property
    def sink_endpoint(self) -> str:
        """OPC UA address of the verdict nodes."""
        return opcua_endpoint(self.settings.sink_port)

    def check(self) -> None:
        """Every embedded server runs.

        Raises:
            Unavailable: One has ended; the line cannot go on without it.
        """
        ended = self.stack.ended()
        if ended is not None:
            folder = self.settings.data_folder / ended
            raise Unavailable(f"embedded {ended} has ended; its logs are below {folder}")


@contextmanager
def bring_up(
    settings: Settings,
    line_path: Path,
    *,
    workers: int = 1,
    virtual_plant: bool = False,
    on_progress: Callable[[str], None],
) -> Iterator[RunningLine]:
    """A line is up while the context lasts; afterwards nothing of it is left running.

    Ctrl-C, SIGTERM and SIGHUP leave the context by `KeyboardInterrupt`.

    Args:
        settings: Servers that they name are used, the others embedded.
        line_path: The line file.
        workers: How many processes share the partitions.
        virtual_plant: Run the virtual plant in the place of PLC and stations.
        on_progress: Takes lines for people.

    Raises:
        Poison: The line file or a setting is broken, or a line is up in this data folder already.
        Unavailable: A server or process did not come up.
    """
    line = load_line(line_path)
    _check_workers(line, workers)
    _check_security(settings)
    folder = settings.data_folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    refuse_second(folder)
    with signals_interrupt(), ExitStack() as cleanup:
        stack = EmbeddedStack(folder, given=_given(settings), on_progress=on_progress)
        try:
            cleanup.enter_context(stack)
            full = _resolved(settings, stack.addresses, virtual_plant=virtual_plant)
            make_registry(full)
            ensure_line_topics(make_log(full), line)
            supervisor = Supervisor(
                folder,
                env=full.environment() | _ray_environment(stack),
                line_path=line_path,
            )
            cleanup.enter_context(supervisor)
            running = RunningLine(
                line=line, line_path=line_path, settings=full, stack=stack, supervisor=supervisor
            )
            _start(running, _processes(running, workers, virtual_plant=virtual_plant), on_progress)
            yield running
        finally:
            on_progress("stopping")
            with signals_wait():
                cleanup.close()


def _check_workers(line: Line, workers: int) -> None:
    partitions = line.topics.partitions
    if partitions > workers * PARTITIONS_MAX:
        raise Poison(
            "topics.partitions",
            f"is {partitions}, and a worker takes {PARTITIONS_MAX} at most: "
            f"start {-(-partitions // PARTITIONS_MAX)} with --workers",
        )


def _check_security(settings: Settings) -> None:
    if settings.kafka_bootstrap_servers is None and settings.kafka_protocol != "PLAINTEXT":
        raise Poison(
            "HOLOLINE_KAFKA_PROTOCOL",
            f"is {settings.kafka_protocol}, and the embedded broker speaks PLAINTEXT on loopback: "
            "name your brokers in KAFKA_BOOTSTRAP_SERVERS, or unset it",
        )


def _processes(running: RunningLine, workers: int, *, virtual_plant: bool) -> list[tuple[str, str]]:
    """Role and name of each process of the line, in the order of their start."""
    roles = ["archiver", "sink", "web"]
    if virtual_plant:
        roles.append("plant")
    if running.settings.plc_endpoint is not None:
        roles.append("source")
    names = [(WORKER, f"{WORKER}-{number}") for number in range(1, workers + 1)]
    return [("scorer", "scorer"), *names, *((role, role) for role in roles)]


def _start(
    running: RunningLine,
    processes: Sequence[tuple[str, str]],
    on_progress: Callable[[str], None],
) -> None:
    supervisor = running.supervisor
    supervisor.publish(
        line=running.line.name,
        addresses=_addresses(running),
        servers=dict(running.stack.pids()),
        environment=_ray_environment(running.stack),
    )
    supervisor.handle("scale", lambda request: _scale(supervisor, request))
    supervisor.handle("kill_scorer", lambda _request: _kill_scorer(supervisor))
    for role, name in processes:
        supervisor.add(role, instance=name)
    names = [name for _, name in processes]
    on_progress(f"starting {', '.join(names)}")
    supervisor.wait_ready(*names, timeout_s=READY_TIMEOUT_S)
    on_progress("every process is ready")


def _ray_environment(stack: EmbeddedStack) -> dict[str, str]:
    """What a process needs to join the embedded Ray; a given one has its own rules."""
    return dict(CLIENT_ENV) if "ray" in stack.pids() else {}


def opcua_endpoint(port: int) -> str:
    """Address of an OPC UA server of ours on this machine."""
    return f"opc.tcp://127.0.0.1:{port}/hololine/"


def _given(settings: Settings) -> Addresses:
    return Addresses(
        kafka=settings.kafka_bootstrap_servers or "",
        redis=settings.redis or "",
        ray=settings.ray_address or "",
        payloads=settings.payloads,
    )


def _resolved(settings: Settings, addresses: Addresses, *, virtual_plant: bool) -> Settings:
    """`settings` with every address known, and ports chosen that outlive a restarted process."""
    plc = opcua_endpoint(free_port()) if virtual_plant else settings.plc_endpoint
    return Settings.model_validate(
        dict(settings)
        | {
            "kafka_bootstrap_servers": addresses.kafka,
            "redis_url": addresses.redis,
            "ray_address": addresses.ray,
            "payloads_url": addresses.payloads,
            "data_folder": settings.data_folder.resolve(),
            "plc_endpoint": plc,
            "sink_port": settings.sink_port or free_port(),
            "web_port": settings.web_port or free_port(),
        }
    )


def _addresses(running: RunningLine) -> Json:
    settings = running.settings
    addresses = {
        "kafka_bootstrap_servers": settings.kafka_bootstrap_servers,
        "redis_url": settings.redis,
        "ray_address": settings.ray_address,
        "payloads_url": settings.payloads,
        "registry_folder": str(settings.registry),
        "archive_url": settings.archive,
        "plc_endpoint": settings.plc_endpoint,
        "sink_endpoint": running.sink_endpoint,
        "page": running.page,
    }
    return {name: address and masked(address) for name, address in addresses.items()}


def _scale(supervisor: Supervisor, request: Json) -> Json:
    replicas = int(request["replicas"])
    supervisor.tell("scorer", {"scale": replicas})
    return {"replicas": replicas}


def _kill_scorer(supervisor: Supervisor) -> Json:
    supervisor.tell("scorer", {"kill": True})
    return {"message": "one scorer is being killed; Serve brings a new one"}
