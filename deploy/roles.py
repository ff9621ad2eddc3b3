"""What each long-lived process of a line does; `deploy/process.py` runs one of them."""

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from connectors.clock import SystemClock
from connectors.errors import Poison, Unavailable
from deploy.control import control, read_state
from deploy.role import Context, commands
from deploy.settings import masked
from deploy.wiring import (
    join_ray,
    make_archive,
    make_join_stores,
    make_log,
    make_registry,
    make_store,
)

REPLICAS_FIRST: Final = 2
NO_VERDICT_GRACE_MS: Final = 2000
"""How much later than its deadline a verdict may reach the sink before it says NO_VERDICT."""

_log = structlog.get_logger(__name__)


def run_worker(context: Context) -> None:
    """The join: records to verdicts."""
    from inference.serve import ServeScorer
    from ingest import service

    join_ray(context.settings)
    _log.info("ray_joined")
    scorer = ServeScorer()
    log = make_log(context.settings)
    context.ready()
    service.run_worker(
        line=context.line,
        log=log,
        stores=make_join_stores(context.settings, context.line),
        scorer=scorer,
        clock=SystemClock(),
        instance=context.instance,
        stop=context.stop,
    )
    scorer.close()


def run_scorer(context: Context) -> None:
    """Deploy the scorer replicas, then scale and fault them as stdin asks."""
    from inference import serve

    join_ray(context.settings)
    serve.deploy_scorer(
        line=context.line,
        registry_root=context.settings.registry,
        payloads_url=context.settings.payloads,
        champions=make_registry(context.settings).champions(),
        replicas=_wanted_replicas(),
    )
    context.ready()
    for command in commands(context.stop):
        if "scale" in command:
            serve.scale(int(command["scale"]))
            _log.info("scorers_scaled", replicas=command["scale"])
        if "kill" in command:
            states = serve.replica_states()
            if states:
                os.kill(states[0].pid, signal.SIGKILL)
                _log.warning("scorer_killed", pid=states[0].pid)


def run_source(context: Context) -> None:
    """The PLC's part events to records."""
    from connectors.opcua.source import OpcUaPartEventSource
    from connectors.opcua.source import run_source as run

    endpoint = context.settings.plc_endpoint
    if endpoint is None:
        raise Poison("HOLOLINE_PLC_ENDPOINT", "is not set; name the PLC's opc.tcp:// address")
    clock = SystemClock()
    source = OpcUaPartEventSource(endpoint=endpoint, line=context.line, clock=clock)
    writer = make_log(context.settings).writer()
    try:
        context.ready()
        run(source=source, writer=writer, line=context.line, clock=clock, stop=context.stop)
    finally:
        source.close()
        writer.close()


def run_sink(context: Context) -> None:
    """Verdicts, and explicit NO_VERDICTs, to OPC UA nodes."""
    from connectors.opcua.deadlines import NoVerdictWatch
    from connectors.opcua.sink import OpcUaVerdictSink
    from connectors.opcua.sink import run_sink as run

    clock, line, log = SystemClock(), context.line, make_log(context.settings)
    sink = OpcUaVerdictSink(line=line, port=context.settings.sink_port, clock=clock)
    records = log.topic_reader(line.topic("records"), start={})
    verdicts = log.topic_reader(line.topic("verdicts"), start={})
    watch = NoVerdictWatch(products=line.products, grace_ms=NO_VERDICT_GRACE_MS, clock=clock)
    try:
        context.ready()
        run(
            sink=sink,
            records=records,
            verdicts=verdicts,
            watch=watch,
            clock=clock,
            stop=context.stop,
        )
    finally:
        sink.close()
        records.close()
        verdicts.close()


def run_web(context: Context) -> None:
    """The page."""
    from deploy.web.app import serve

    folder = context.settings.data_folder

    def press(command: str) -> Mapping[str, Any]:
        verb, _, station = command.partition("/")
        return control(folder, verb.replace("-", "_"), **({"station": station} if station else {}))

    context.ready()
    serve(
        line=context.line,
        log=make_log(context.settings),
        store=make_store(context.settings),
        control=press,
        banner=_banner(context),
        registry=context.settings.registry,
        port=context.settings.web_port,
    )


def run_archiver(context: Context) -> None:
    """Judged evidence from the logs to the archive."""
    from training.archive import run_archiver as run

    log, archive = make_log(context.settings), make_archive(context.settings)
    context.ready()
    run(log, context.line, archive, clock=SystemClock(), stop=context.stop)


def run_plant(context: Context) -> None:
    """The virtual plant in the place of PLC, stations and laboratory."""
    from deploy.plant_role import run

    run(context)


def _wanted_replicas() -> int:
    """As many as Serve works towards already; two at first, so that one may be killed."""
    from inference.serve import wanted_replicas

    try:
        return wanted_replicas()
    except Unavailable:
        return REPLICAS_FIRST


def _banner(context: Context) -> dict[str, Any]:
    """What the page says of itself, with addresses for people's own clients."""
    settings = context.settings
    state = read_state(settings.data_folder) or {}
    servers = {
        "Kafka": settings.kafka_bootstrap_servers,
        "Redis": None if settings.redis is None else masked(settings.redis),
        "Ray": settings.ray_address,
        "PLC (OPC UA)": settings.plc_endpoint,
        "verdicts (OPC UA)": f"opc.tcp://127.0.0.1:{settings.sink_port}/hololine/",
    }
    virtual = "plant" in state.get("children", {})
    return {
        "title": "virtual plant" if virtual else f"line {context.line.name}",
        "servers": {name: address for name, address in servers.items() if address is not None},
    }


ROLES: Final[dict[str, Callable[[Context], None]]] = {
    "worker": run_worker,
    "scorer": run_scorer,
    "source": run_source,
    "sink": run_sink,
    "web": run_web,
    "archiver": run_archiver,
    "plant": run_plant,
}
