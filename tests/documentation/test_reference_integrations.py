"""The documented API together with other libraries: each test is one section of the reference README."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import sys
import typing
import uuid
from datetime import datetime

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("faststream")
pytest.importorskip("google.protobuf")

import fastapi
import faststream
import httpx
import pydantic
from fastapi import status
from faststream import kafka

import cqrs
from cqrs.deserializers import DeserializeJsonError, JsonDeserializer
from cqrs.deserializers.protobuf import ProtobufDeserializer
from cqrs.events import bootstrap as event_bootstrap
from cqrs.requests import bootstrap
from cqrs.serializers.protobuf import protobuf_serializer

# --- FastAPI requests handling


class JoinMeetingCommand(cqrs.Request):
    meeting_id: int
    user_id: str


joined: list[tuple[int, str]] = []


class JoinMeetingCommandHandler(cqrs.RequestHandler[JoinMeetingCommand, None]):
    async def handle(self, request: JoinMeetingCommand) -> None:
        joined.append((request.meeting_id, request.user_id))


def mediator_factory() -> cqrs.RequestMediator:
    def commands_mapper(mapper: cqrs.RequestMap) -> None:
        mapper.bind(JoinMeetingCommand, JoinMeetingCommandHandler)

    return bootstrap.bootstrap(commands_mapper=commands_mapper)


router = fastapi.APIRouter(prefix="/meetings")


@router.put("/{meeting_id}/{user_id}", status_code=status.HTTP_200_OK)
async def join_metting(
    meeting_id: pydantic.PositiveInt,
    user_id: str,
    mediator: cqrs.RequestMediator = fastapi.Depends(mediator_factory),  # noqa: B008
):
    await mediator.send(JoinMeetingCommand(meeting_id=meeting_id, user_id=user_id))
    return {"result": "ok"}


def client_of(app: fastapi.FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")


async def test_fastapi_requests_handling() -> None:
    """Section "FastAPI requests handling"."""
    app = fastapi.FastAPI()
    app.include_router(router)
    joined.clear()
    async with client_of(app) as client:
        response = await client.put("/meetings/1/ada")
        refused = await client.put("/meetings/0/ada")
    assert (response.status_code, response.json()) == (200, {"result": "ok"})
    assert refused.status_code == 422
    assert joined == [(1, "ada")]


# --- FastAPI SSE Streaming


class ProcessFilesCommand(cqrs.Request):
    file_ids: list[str]


class FileProcessedResult(cqrs.Response):
    file_id: str


class FileProcessedEvent(cqrs.DomainEvent):
    file_id: str


class ProcessFilesCommandHandler(cqrs.StreamingRequestHandler[ProcessFilesCommand, FileProcessedResult]):
    def __init__(self) -> None:
        self._events: list[cqrs.Event] = []

    @property
    def events(self) -> list[cqrs.Event]:
        return self._events.copy()

    def clear_events(self) -> None:
        self._events.clear()

    async def handle(self, request: ProcessFilesCommand) -> typing.AsyncIterator[FileProcessedResult]:
        for file_id in request.file_ids:
            self._events.append(FileProcessedEvent(file_id=file_id))
            yield FileProcessedResult(file_id=file_id)


noted: list[str] = []


class NoteFile(cqrs.EventHandler[FileProcessedEvent]):
    async def handle(self, event: FileProcessedEvent) -> None:
        noted.append(event.file_id)


def commands_mapper(mapper: cqrs.RequestMap) -> None:
    mapper.bind(ProcessFilesCommand, ProcessFilesCommandHandler)


def domain_events_mapper(mapper: cqrs.EventMap) -> None:
    mapper.bind(FileProcessedEvent, NoteFile)


def streaming_mediator_factory() -> cqrs.StreamingRequestMediator:
    return bootstrap.bootstrap_streaming(
        di_container=cqrs.PlainContainer(),
        commands_mapper=commands_mapper,
        domain_events_mapper=domain_events_mapper,
        message_broker=cqrs.DevnullMessageBroker(),
        max_concurrent_event_handlers=3,
        concurrent_event_handle_enable=True,
    )


sse_app = fastapi.FastAPI()


@sse_app.post("/process-files")
async def process_files_stream(
    command: ProcessFilesCommand,
    mediator: cqrs.StreamingRequestMediator = fastapi.Depends(streaming_mediator_factory),  # noqa: B008
) -> fastapi.responses.StreamingResponse:
    async def generate_sse():
        yield f"data: {json.dumps({'type': 'start', 'message': 'Processing...'})}\n\n"

        async for result in mediator.stream(command):
            sse_data = {
                "type": "progress",
                "data": result.to_dict(),
            }
            yield f"data: {json.dumps(sse_data)}\n\n"

        yield f"data: {json.dumps({'type': 'complete'})}\n\n"

    return fastapi.responses.StreamingResponse(
        generate_sse(),
        media_type="text/event-stream",
    )


async def test_fastapi_sse_streaming() -> None:
    """Section "FastAPI SSE Streaming"."""
    noted.clear()
    async with client_of(sse_app) as client:
        response = await client.post("/process-files", json={"file_ids": ["a", "b"]})
    events = [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n\n") if line]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert [event["type"] for event in events] == ["start", "progress", "progress", "complete"]
    assert [event["data"]["file_id"] for event in events[1:3]] == ["a", "b"] == noted


# --- Kafka events consuming


class HelloWorldPayload(pydantic.BaseModel):
    hello: str = pydantic.Field(default="Hello")
    world: str = pydantic.Field(default="World")


greeted: list[str] = []


class HelloWorldECSTEventHandler(cqrs.EventHandler[cqrs.NotificationEvent[HelloWorldPayload]]):
    async def handle(self, event: cqrs.NotificationEvent[HelloWorldPayload]) -> None:
        greeted.append(f"{event.payload.hello} {event.payload.world}")


def event_mediator_factory() -> cqrs.EventMediator:
    def events_mapper(mapper: cqrs.EventMap) -> None:
        mapper.bind(cqrs.NotificationEvent[HelloWorldPayload], HelloWorldECSTEventHandler)

    return event_bootstrap.bootstrap(events_mapper=events_mapper)


value_deserializer = JsonDeserializer(cqrs.NotificationEvent[HelloWorldPayload])


async def decoder(message: kafka.KafkaMessage) -> cqrs.NotificationEvent[HelloWorldPayload] | None:
    event = value_deserializer(message.body)
    return None if isinstance(event, DeserializeJsonError) else event


async def hello_world_event_handler(
    body: cqrs.NotificationEvent[HelloWorldPayload] | None,
    msg: kafka.KafkaMessage,
    mediator: cqrs.EventMediator = faststream.Depends(event_mediator_factory),  # noqa: B008
):
    if body is not None:
        await mediator.send(body)
    await msg.ack()


async def test_kafka_events_consuming(backend_name: str) -> None:
    """Section "Kafka events consuming". FastStream takes ``ack_policy`` today where it took ``auto_commit``."""
    if backend_name != "asyncio":
        pytest.skip("FastStream knows only asyncio")
    broker = kafka.KafkaBroker(bootstrap_servers=["localhost:9092"])
    broker.subscriber("hello_world", group_id="examples", ack_policy=faststream.AckPolicy.MANUAL, decoder=decoder)(
        hello_world_event_handler
    )
    event = cqrs.NotificationEvent[HelloWorldPayload](
        event_name="HelloWorld", topic="hello_world", payload=HelloWorldPayload()
    )
    greeted.clear()
    async with kafka.TestKafkaBroker(broker):
        await broker.publish(event.model_dump(mode="json"), topic="hello_world")
        await broker.publish(b"nothing that can be read", topic="hello_world")
    assert greeted == ["Hello World"]


# --- Protobuf messaging


def _generated() -> typing.Any:
    path = pathlib.Path(__file__).parents[2] / "examples" / "user_joined_pb2.py"
    spec = importlib.util.spec_from_file_location("user_joined_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


user_joined_pb2 = _generated()


class UserJoinedPayload(cqrs.Response):
    user_id: str
    meeting_id: str


class UserJoinedNotificationEvent(cqrs.NotificationEvent[UserJoinedPayload]):
    event_name: str = "UserJoined"

    def proto(self):
        msg = user_joined_pb2.UserJoinedNotification()
        msg.event_id = str(self.event_id)
        msg.event_timestamp = self.event_timestamp.isoformat()
        msg.event_name = self.event_name
        msg.payload.user_id = self.payload.user_id
        msg.payload.meeting_id = self.payload.meeting_id
        return msg

    @classmethod
    def from_proto(cls, proto_msg):
        return cls(
            event_id=uuid.UUID(proto_msg.event_id),
            event_timestamp=datetime.fromisoformat(proto_msg.event_timestamp),
            event_name=proto_msg.event_name,
            topic="user_notification_events",
            payload=UserJoinedPayload(
                user_id=proto_msg.payload.user_id,
                meeting_id=proto_msg.payload.meeting_id,
            ),
        )


def test_protobuf_messaging() -> None:
    """Section "Protobuf messaging": to bytes by ``proto()``, and back by ``from_proto()``."""
    event = UserJoinedNotificationEvent(
        topic="user_notification_events", payload=UserJoinedPayload(user_id="ada", meeting_id="1")
    )
    assert UserJoinedNotificationEvent.from_proto(event.proto()) == event
    data = protobuf_serializer(event)
    deserialize = ProtobufDeserializer(UserJoinedNotificationEvent, user_joined_pb2.UserJoinedNotification)
    assert deserialize(data) == event
