"""FastStream consumes from Kafka and hands each event to an event mediator.

It runs on asyncio only, as FastStream and its Kafka client do, and against FastStream's test broker,
so that no Kafka is needed.
"""

import argparse
import functools
from typing import Annotated

import anyio
import faststream
import pydantic
from faststream import kafka

import cqrs
from cqrs.deserializers import DeserializeJsonError, JsonDeserializer
from cqrs.events import bootstrap


class HelloWorldPayload(pydantic.BaseModel):
    """What the producer sends."""

    hello: str = "Hello"
    world: str = "World"


HelloWorld = cqrs.NotificationEvent[HelloWorldPayload]


class HelloWorldHandler(cqrs.EventHandler[HelloWorld]):
    """Told of each event that arrives."""

    async def handle(self, event: HelloWorld) -> None:
        print(f"{event.payload.hello} {event.payload.world}")


def bind_events(mapper: cqrs.EventMap) -> None:
    """Notification events are bound by their payload."""
    mapper.bind(HelloWorld, HelloWorldHandler)


@functools.lru_cache
def mediator_factory() -> cqrs.EventMediator:
    """One mediator for the application."""
    return bootstrap.bootstrap(events_mapper=bind_events)


broker = kafka.KafkaBroker("localhost:9092")
app = faststream.FastStream(broker)
deserialize = JsonDeserializer(HelloWorld)


async def decode(message: kafka.KafkaMessage) -> HelloWorld | None:
    """The event in a message. What cannot be read is reported and passed over."""
    event = deserialize(message.body)
    if isinstance(event, DeserializeJsonError):
        print(f"passed over {event.message_data!r}: {event.error_type.__name__}")
        return None
    return event


@broker.subscriber("hello_world", group_id="examples", decoder=decode, ack_policy=faststream.AckPolicy.MANUAL)
async def consume(
    body: HelloWorld | None,
    message: kafka.KafkaMessage,
    mediator: Annotated[cqrs.EventMediator, faststream.Depends(mediator_factory)],
) -> None:
    """Acknowledged after it was handled, or was found unreadable."""
    if body is not None:
        await mediator.send(body)
    await message.ack()


async def main() -> None:
    """Publish two events and something that is none."""
    async with kafka.TestKafkaBroker(broker) as test_broker:
        for payload in (HelloWorldPayload(), HelloWorldPayload(hello="Good evening")):
            event = HelloWorld(event_name="HelloWorld", topic="hello_world", payload=payload)
            await test_broker.publish(event.model_dump(mode="json"), topic=event.topic)
        await test_broker.publish(b"not an event", topic="hello_world")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
