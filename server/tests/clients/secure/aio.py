"""aiokafka over TLS, by SCRAM-SHA-512."""

import asyncio
import os
import ssl

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def main():
    settings = {
        "bootstrap_servers": os.environ["BOOTSTRAP"],
        "security_protocol": "SASL_SSL",
        "ssl_context": ssl.create_default_context(cafile=os.environ["TLS_CA"]),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": os.environ["SASL_USER"],
        "sasl_plain_password": os.environ["SASL_PASSWORD"],
    }
    async with AIOKafkaProducer(**settings) as producer:
        await producer.send_and_wait(os.environ["TOPIC"], b"hello, Ada", key=b"Ada")
    topic, group = os.environ["TOPIC"], os.environ["GROUP"]
    async with AIOKafkaConsumer(topic, group_id=group, auto_offset_reset="earliest", **settings) as consumer:
        record = await asyncio.wait_for(consumer.getone(), 30)
        print(record.value.decode())


asyncio.run(main())
