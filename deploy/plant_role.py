"""The virtual plant as one process of a line, told what to do on stdin."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from connectors.clock import SystemClock
from connectors.simulator.plant import VirtualPlant
from connectors.simulator.plc import Plc
from connectors.simulator.schedule import PlantSchedule
from deploy.role import Context, commands
from deploy.wiring import make_log, make_store

_END_S: Final = 6.0

_log = structlog.get_logger(__name__)


def run(context: Context) -> None:
    """The virtual plant: its PLC at once, parts once stdin says ``{"start": {...}}``.

    ``start`` takes the fields of `PlantSchedule` that differ, and ``parts_per_s``. ``unplug`` and
    ``plug`` name a station. What the plant has sent stands in ``run/plant.json``.
    """
    line, port = context.line, urlsplit(context.settings.plc_endpoint or "").port
    plc = Plc(line=line, port=port or 0)
    plc.start()
    plant = _Plant(context, plc)
    try:
        context.ready()
        for command in commands(context.stop, every=plant.report):
            plant.obey(command)
    finally:
        plant.end()
        plc.stop()


class _Plant:
    """One run of the virtual plant, on a thread of its own, and what it is told meanwhile."""

    def __init__(self, context: Context, plc: Plc) -> None:
        self._context = context
        self._plc = plc
        self._plant: VirtualPlant | None = None
        self._thread: threading.Thread | None = None
        self._unplugged: set[str] = set()
        self._failure: Exception | None = None

    def obey(self, command: Mapping[str, Any]) -> None:
        """Do what one command says; nonsense is logged and passed over."""
        for verb, given in command.items():
            try:
                self._do(verb, given)
            except (TypeError, ValueError) as error:
                _log.warning("plant_command_refused", command=command, reason=str(error))

    def _do(self, verb: str, given: Any) -> None:
        if verb == "start":
            self._start(dict(given))
        elif given not in self._context.line.stations:
            raise ValueError(f"{given!r} is no station of this line")
        elif verb == "unplug":
            self._unplugged.add(given)
            self._each_station()
        elif verb == "plug":
            self._unplugged.discard(given)
            if self._plant is not None:
                self._plant.plug(given)
        else:
            raise ValueError("the plant knows start, unplug and plug")

    def report(self) -> None:
        """``run/plant.json`` says what was sent, and whether that was all."""
        if self._plant is None or self._thread is None:
            return
        self._raise_failure()
        finished = not self._thread.is_alive()
        report = {"sent": dict(self._plant.sent), "finished": finished}
        path = plant_report_path(self._context.settings.data_folder)
        whole = path.with_suffix(".new")
        whole.write_text(json.dumps(report), encoding="utf-8")
        whole.replace(path)

    def end(self) -> None:
        """The plant has published what belongs to the parts inside, or has had its time."""
        self._context.stop.set()
        if self._thread is not None:
            self._thread.join(_END_S)

    def _start(self, given: dict[str, Any]) -> None:
        if self._thread is not None and self._thread.is_alive():
            raise ValueError("the plant runs already")
        parts_per_s = float(given.pop("parts_per_s", 2.0))
        self._plant = VirtualPlant(
            line=self._context.line,
            log=make_log(self._context.settings),
            store=make_store(self._context.settings),
            plc=self._plc,
            schedule=PlantSchedule(**given),
            parts_per_s=parts_per_s,
            clock=SystemClock(),
        )
        self._each_station()
        self._thread = threading.Thread(
            target=self._run, args=(self._plant,), name="plant", daemon=True
        )
        self._thread.start()

    def _run(self, plant: VirtualPlant) -> None:
        try:
            plant.run(self._context.stop)
        except Exception as error:  # noqa: BLE001 - carried to the main thread, which ends on it
            self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _each_station(self) -> None:
        if self._plant is not None:
            for station in self._unplugged:
                self._plant.unplug(station)


def plant_report_path(folder: Path) -> Path:
    """Where the virtual plant of the line in `folder` says what it has sent."""
    return folder / "run" / "plant.json"
