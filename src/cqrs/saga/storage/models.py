"""What a saga storage keeps: records, leases and log entries."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import datetime
from typing import Any, Literal, TypeAlias

from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus

StepAction: TypeAlias = Literal["act", "compensate"]
"""What a log entry is about."""


@dataclasses.dataclass(frozen=True)
class SagaLogEntry:
    """One entry of a saga's log.

    :param step_name: the step's class name; the second step of that name in one saga is ``Name#2``, and so on.
    :param timestamp: when it was written, timezone-aware. The order of a log is the order of its writes, not of these.
    :param details: what went wrong, where something did.
    """

    saga_id: uuid.UUID
    step_name: str
    action: StepAction
    status: SagaStepStatus
    timestamp: datetime
    details: str | None = None


@dataclasses.dataclass(frozen=True)
class SagaLease:
    """The right to run one saga.

    :param owner: who holds it.
    :param version: the fencing token: it grows with each lease on the saga, so that the writes of an
        earlier holder can be told and refused.
    :param duration: for how many seconds from its last renewal it is held. Each commit renews it.
    """

    saga_id: uuid.UUID
    owner: str
    version: int
    duration: float


@dataclasses.dataclass(frozen=True)
class SagaRecord:
    """All that is stored of a saga, its log aside. Times are timezone-aware.

    :param name: the name of the saga's class.
    :param context: the context as it was written last, in JSON's types.
    :param version: counts the writes of the context.
    :param deadline: when the saga must have ended; None: whenever.
    :param locked_by: who holds, or last held, a lease. None: it was released.
    :param locked_until: when that lease ends.
    :param lease_version: the fencing token of the last lease.
    :param recovery_attempts: how many recoveries have failed, or ended without a word.
    :param available_at: recovery leaves it alone until then.
    :param parked_reason: why it waits for somebody to look at it; None: it does not.
    """

    saga_id: uuid.UUID
    name: str
    status: SagaStatus
    context: dict[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime
    deadline: datetime | None = None
    locked_by: str | None = None
    locked_until: datetime | None = None
    lease_version: int = 0
    recovery_attempts: int = 0
    available_at: datetime | None = None
    parked_reason: str | None = None
