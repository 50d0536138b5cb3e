"""What a saga's fallback asks of a circuit breaker: the same as any other fallback does."""

from __future__ import annotations

from cqrs.circuit_breaker import ICircuitBreaker

ISagaStepCircuitBreaker = ICircuitBreaker
"""The documented name of :class:`~cqrs.circuit_breaker.ICircuitBreaker` for steps: their class is the identifier."""

__all__ = ["ISagaStepCircuitBreaker"]
