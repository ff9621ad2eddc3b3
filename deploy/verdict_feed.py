"""What a consumer of verdicts should do, as an MES would do it.

Read committed records only, take each verdict once by its id, and let a later revision of a part
replace the one it supersedes.
"""

from collections import OrderedDict
from typing import Final

from rich.markup import escape

from connectors.errors import MalformedMessage
from connectors.messages import Disposition, Verdict
from connectors.ports import TopicReader

IDS_MAX: Final = 100_000
_POLL_LIMIT: Final = 500
_COLOURS: Final = {
    Disposition.ACCEPT: "green",
    Disposition.REJECT: "bold red",
    Disposition.HOLD: "yellow",
    Disposition.UNDECIDABLE: "magenta",
}


class VerdictFeed:
    """Each committed verdict once, in order of revisions per part.

    It remembers the last `IDS_MAX` ids: a verdict that comes again within them is not given again.

    Args:
        reader: Reads the verdicts topic.
    """

    def __init__(self, reader: TopicReader) -> None:
        self._reader = reader
        self._seen: OrderedDict[str, Disposition] = OrderedDict()
        self.duplicates = 0
        self.unreadable = 0

    def poll(self, *, timeout_s: float) -> list[Verdict]:
        """The verdicts that are new; empty after `timeout_s` without any.

        Raises:
            Unavailable: The broker cannot be reached.
        """
        new: list[Verdict] = []
        for record in self._reader.poll(timeout_s=timeout_s, limit=_POLL_LIMIT):
            try:
                verdict = Verdict.from_bytes(record.value or b"")
            except MalformedMessage:
                self.unreadable += 1
                continue
            if verdict.verdict_id in self._seen:
                self.duplicates += 1
                continue
            self._seen[verdict.verdict_id] = verdict.disposition
            if len(self._seen) > IDS_MAX:
                self._seen.popitem(last=False)
            new.append(verdict)
        return new

    def superseded(self, verdict: Verdict) -> Disposition | None:
        """What was said of the part before, if this feed has seen it."""
        return None if verdict.supersedes is None else self._seen.get(verdict.supersedes)

    def caught_up(self) -> bool:
        """Whether everything that was published is read."""
        return self._reader.caught_up()


def summary(verdict: Verdict, *, before: Disposition | None) -> str:
    """One line for people, in rich markup: what, how sure, from what, and what it replaces."""
    colour = _COLOURS[verdict.disposition]
    words = [
        f"[bold]{escape(verdict.part.part_id)}[/]",
        f"pass {verdict.part.pass_number} rev {verdict.revision}",
        verdict.product,
        f"[{colour}]{verdict.disposition}[/]",
        "p -" if verdict.p_value is None else f"p {verdict.p_value:.3f}",
        _promise(verdict),
        f"real {_listed(verdict.real)}",
    ]
    if verdict.hallucinated:
        words.append(f"[cyan]hallucinated {_listed(verdict.hallucinated)}[/]")
    if verdict.supersedes is not None:
        was = "an earlier revision" if before is None else f"{before}"
        words.append(f"[dim]replaces {was}[/]")
    if verdict.reasons:
        words.append(f"[dim]{escape(', '.join(verdict.reasons))}[/]")
    return "  ".join(words)


def _promise(verdict: Verdict) -> str:
    if not verdict.promise_valid:
        return "no promise"
    return f"<= {verdict.false_reject_rate:.1%} false rejects"


def _listed(names: tuple[str, ...]) -> str:
    return "+".join(names) or "nothing"
