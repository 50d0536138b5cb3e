"""Where sagas are kept, so that they outlive the process that runs them."""

from cqrs.saga.storage.enums import SagaStatus, SagaStepStatus
from cqrs.saga.storage.memory import MemorySagaStorage
from cqrs.saga.storage.models import SagaLease, SagaLogEntry, SagaRecord
from cqrs.saga.storage.protocol import ILeasedSagaStorage, ISagaStorage, LeasedSagaRun, SagaStorageRun

__all__ = [
    "ILeasedSagaStorage",
    "ISagaStorage",
    "LeasedSagaRun",
    "MemorySagaStorage",
    "SagaLease",
    "SagaLogEntry",
    "SagaRecord",
    "SagaStatus",
    "SagaStepStatus",
    "SagaStorageRun",
]
