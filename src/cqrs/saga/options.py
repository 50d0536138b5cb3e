"""How sagas are run, beside what they say themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime

from cqrs._clock import utc_now
from cqrs._options import seconds
from cqrs.retry import RetryPolicy, exponential

COMPENSATION_TIMEOUT = 30.0
LEASE_DURATION = 30.0


@dataclasses.dataclass(frozen=True)
class SagaOptions:
    """How sagas are run.

    :param compensation: how a step's compensation is retried.
    :param compensation_timeout: seconds that rolling a saga back may take, shielded from cancellation. Then the
        saga stays COMPENSATING, and recovery goes on with it.
    :param lease_duration: seconds after which a saga can be taken over from a runner that has died. It is
        renewed while the runner lives.
    :param clock: what deadlines go by; timezone-aware.
    :raises InvalidOptionError: a number of seconds is not greater than zero.
    """

    compensation: RetryPolicy = dataclasses.field(default_factory=lambda: exponential(3, 1.0, 2.0))
    compensation_timeout: float = COMPENSATION_TIMEOUT
    lease_duration: float = LEASE_DURATION
    clock: Callable[[], datetime] = utc_now

    def __post_init__(self) -> None:
        seconds("compensation_timeout", self.compensation_timeout)
        seconds("lease_duration", self.lease_duration)
