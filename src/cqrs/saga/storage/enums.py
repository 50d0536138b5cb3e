"""The states of a saga and of its steps, as they are stored."""

from __future__ import annotations

import enum


class SagaStatus(str, enum.Enum):
    """How far a saga has got."""

    PENDING = "pending"
    """Created, nothing begun. Recovery begins it."""
    RUNNING = "running"
    """Going forward."""
    COMPENSATING = "compensating"
    """Being rolled back. It never goes forward again."""
    COMPLETED = "completed"
    """All steps are done, for good."""
    FAILED = "failed"
    """Rolled back: whatever was done has been undone."""
    COMPENSATION_FAILED = "compensation_failed"
    """A step could not be undone, however often it was tried. Recovery tries again."""

    def __str__(self) -> str:
        return self.value


class SagaStepStatus(str, enum.Enum):
    """What an entry in a saga's log says of a step's action."""

    STARTED = "started"
    """About to begin, or begun. Without a later entry, how it ended is unknown."""
    COMPLETED = "completed"
    """Done. Of a compensation: undone."""
    FAILED = "failed"
    """It raised: not done."""
    COMPENSATED = "compensated"
    """Undone: what other writers of a log say for a completed compensation."""
    INTERRUPTED = "interrupted"
    """Cancelled or timed out: whether it is done is unknown."""
    NOT_STARTED = "not_started"
    """It was about to begin, and did not."""

    def __str__(self) -> str:
        return self.value
