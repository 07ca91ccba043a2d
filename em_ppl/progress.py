"""One line that says what a fit is doing."""

from __future__ import annotations

from types import TracebackType

from rich.progress import Progress as RichProgress
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["Progress"]


class Progress:
    """Show what is being done, and for how long; silent if not `show`."""

    def __init__(self, *, show: bool) -> None:
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        self._bar = RichProgress(*columns, disable=not show)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.update(self._task, total=1, completed=1)
        self._bar.stop()

    def say(self, what: str) -> None:
        """Replace the line's text."""
        self._bar.update(self._task, description=what)

    def step(self, iteration: int, log_evidence: float, change: float, tol: float) -> None:
        """Show one EM iteration."""
        self.say(f"EM step {iteration}: log evidence {log_evidence:.4f}, change {change:.1e} (until {tol:.0e})")
