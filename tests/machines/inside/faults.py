"""What a machine reports when something goes wrong in it, for its own tests alone."""

from pathlib import Path

from .cases import Context, on


@on("faulty")
def case_raises(context: Context) -> None:
    """A case that fails; the next runs all the same."""
    raise ValueError(f"on {context.release}")


@on("faulty")
def case_panics(context: Context) -> None:
    """A kernel that stops, by the means that sysrq has for trying that out."""
    del context
    Path("/proc/sysrq-trigger").write_text("c")


@on("faulty")
def case_is_after_that(context: Context) -> None:
    """Nobody hears of it."""
