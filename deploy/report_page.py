"""The report of a run: one HTML file that needs nothing else, for people to keep and to send."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from deploy.overlays import Overlay
from deploy.plots import auroc_plot, latency_plot, promise_plot
from deploy.report import figure, observed, percent, subset_words
from deploy.web.cards import outcome, words

_TEMPLATES: Final = Path(__file__).parent / "templates"


def write_report(path: Path, summary: Mapping[str, Any], overlays: Sequence[Overlay]) -> None:
    """`path` is a self-contained page: figures, plots, judged parts and the night.

    Args:
        path: Where to write it.
        summary: Of `deploy.report.make_summary`.
        overlays: Of `deploy.overlays.choose_overlays`.
    """
    environment = page_environment()
    environment.filters.update(percent=percent, subset=subset_words, observed=observed, words=words)
    environment.globals.update(figure=figure)
    plots = {
        "auroc": auroc_plot(summary["per_subset"]),
        "promise": promise_plot(summary["per_subset"]),
        "latency": latency_plot(summary["latency_ms"]),
    }
    text = environment.get_template("report.html").render(
        summary=summary,
        plots={name: Markup(svg or "") for name, svg in plots.items()},  # noqa: S704 - our own
        examples=[_example(overlay) for overlay in overlays],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def page_environment() -> Environment:
    """Where the templates of pages lie; what a template asks for has to be there."""
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _example(overlay: Overlay) -> dict[str, Any]:
    verdict, truth = overlay.verdict, overlay.truth
    return {
        "verdict": verdict,
        "truth": truth,
        "outcome": outcome(verdict.disposition, truth),
        "captures": {name: _uri(data) for name, data in sorted(overlay.captures.items())},
        "hallucinated": {name: _uri(data) for name, data in sorted(overlay.hallucinated.items())},
    }


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"
