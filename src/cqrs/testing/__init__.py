"""Parts for tests of applications, and of implementations of this library's protocols."""

from cqrs._optional_library import OptionalLibrary

with OptionalLibrary("pytest", extra="testing"):
    import pytest

pytest.register_assert_rewrite(
    "cqrs.testing.saga_storage",
    "cqrs.testing.saga_runs",
    "cqrs.testing.saga_leases",
    "cqrs.testing.leased_saga_storage",
)

from cqrs.testing.leased_saga_storage import LeasedSagaStorageContract  # noqa: E402 - they are rewritten from here on
from cqrs.testing.saga_runs import SagaRunContract  # noqa: E402
from cqrs.testing.saga_storage import SagaStorageContract  # noqa: E402

__all__ = ["LeasedSagaStorageContract", "SagaRunContract", "SagaStorageContract"]
