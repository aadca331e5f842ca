"""The full-screen view: steps on top, the latest traces below, one of them whole beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import DataTable, Footer, Header, Static

from midcourse.errors import MidcourseError
from midcourse.printable import printable
from midcourse.report.overview import Overview, State, read_overview
from midcourse.watch.traces import Trace, Traces, latest_traces

_COLUMNS = ("step", "state", "result")
_COLOURS = {"correct": "green", "accepted": "green", "incorrect": "red", "ungraded": "yellow"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a run directory holds at one moment."""

    overview: Overview | None
    traces: Traces
    problem: str = ""
    """Why it could not be read, in one line; empty if it could."""


def take(run_dir: Path) -> Snapshot:
    """Look at a run directory. A file that changes under us is a problem of this moment only."""
    try:
        return Snapshot(read_overview(run_dir), latest_traces(run_dir))
    except (MidcourseError, OSError) as error:
        return Snapshot(None, Traces(source=""), str(error))


class WatchApp(App[None]):
    """``midcourse watch``: looks again every few seconds, and writes nothing."""

    CSS = """
    #steps { height: auto; max-height: 45%; }
    #below { height: 1fr; }
    #traces { width: 45%; }
    #detail { width: 1fr; padding: 0 1; border-left: solid $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("space", "pause", "Pause"),
        Binding("r", "look", "Look now"),
        Binding("j", "down", "Next", show=False),
        Binding("k", "up", "Previous", show=False),
    ]

    def __init__(
        self, run_dir: Path, seconds: float, look: Callable[[Path], Snapshot] = take
    ) -> None:
        super().__init__()
        self._run_dir, self._seconds, self._take = run_dir, seconds, look
        self._traces: tuple[Trace, ...] = ()
        self._is_paused = False
        self.title = f"midcourse watch {run_dir}"

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Header(show_clock=True)
        yield DataTable(id="steps", cursor_type="none", zebra_stripes=True)
        with Horizontal(id="below"):
            yield DataTable(id="traces", cursor_type="row")
            with VerticalScroll(id="detail"):
                yield Static(id="text")
        yield Footer()

    def on_mount(self) -> None:
        """Look for the first time, and every few seconds from then on."""
        self.query_one("#traces", DataTable).focus()
        self.action_look()
        self.set_interval(self._seconds, self._tick)

    def _tick(self) -> None:
        # A big run may take longer to read than the time between two looks.
        if not self._is_paused and not any(worker.is_running for worker in self.workers):
            self.action_look()

    @work(thread=True)
    def action_look(self) -> None:
        """Read the run directory beside the screen's own work."""
        self.call_from_thread(self._show, self._take(self._run_dir))

    def action_pause(self) -> None:
        """Stop looking, so that a trace can be read; or go on."""
        self._is_paused = not self._is_paused
        self.sub_title = "paused" if self._is_paused else ""

    def action_down(self) -> None:
        """Go to the trace below."""
        self.query_one("#traces", DataTable).action_cursor_down()

    def action_up(self) -> None:
        """Go to the trace above."""
        self.query_one("#traces", DataTable).action_cursor_up()

    def _show(self, snapshot: Snapshot) -> None:
        if not self.is_running:  # closed during this look: its tables are gone
            return
        if snapshot.overview is None:
            self.sub_title = printable(snapshot.problem, keep="")
            return
        self.sub_title = "paused" if self._is_paused else printable(snapshot.overview.totals())
        self._show_steps(snapshot.overview)
        self._show_traces(snapshot.traces)

    def _show_steps(self, overview: Overview) -> None:
        """List the steps; the one under way, or the last one that was begun, is in sight."""
        table = self.query_one("#steps", DataTable)
        table.clear(columns=True)
        table.add_columns(*_COLUMNS)
        for step in overview.steps:
            table.add_row(*map(_text, (f"{step.stage} {step.label}", str(step.state), step.result)))
        begun = [n for n, step in enumerate(overview.steps) if step.state is not State.NOT_BEGUN]
        table.scroll_to(y=max(begun, default=0) - 2, animate=False)

    def _show_traces(self, found: Traces) -> None:
        """List the latest traces; the one that is looked at stays while it is among them."""
        table = self.query_one("#traces", DataTable)
        chosen = self._chosen()
        if found.traces == self._traces and table.columns:
            return
        self._traces = found.traces
        table.clear(columns=True)
        table.add_column(_text(f"latest of {found.source}" if found.source else "no traces yet"))
        for trace in found.traces:
            table.add_row(Text(printable(trace.title, keep=""), _COLOURS.get(trace.verdict, "")))
        ids = [trace.id for trace in found.traces]
        table.move_cursor(row=ids.index(chosen) if chosen in ids else 0)
        self._show_text()

    def _chosen(self) -> str:
        row = self.query_one("#traces", DataTable).cursor_row
        return self._traces[row].id if 0 <= row < len(self._traces) else ""

    def on_data_table_row_highlighted(self, _: DataTable.RowHighlighted) -> None:
        """Show the trace that the cursor is on."""
        self._show_text()

    def _show_text(self) -> None:
        chosen = next((trace for trace in self._traces if trace.id == self._chosen()), None)
        text = f"{chosen.id}\n{chosen.title}\n\n{chosen.text}" if chosen else ""
        self.query_one("#text", Static).update(_text(text))


def _text(text: str) -> Text:
    """Return text of others as it is seen: neither markup nor control sequences."""
    return Text(printable(text))
