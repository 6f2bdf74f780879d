"""confluent-kafka (librdkafka) over TLS, by SCRAM-SHA-512 or by a token."""

import os
import time

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

tls = {
    "bootstrap.servers": os.environ["BOOTSTRAP"],
    "security.protocol": "SASL_SSL",
    "ssl.ca.location": os.environ["TLS_CA"],
}


def token(_):
    with open(os.environ["TOKEN_FILE"]) as file:
        return file.read().strip(), time.time() + 300


if os.environ["WAY"] == "token":
    settings = {**tls, "sasl.mechanisms": "OAUTHBEARER", "oauth_cb": token}
else:
    scram = {**tls, "sasl.mechanisms": "SCRAM-SHA-512", "sasl.username": os.environ["SASL_USER"]}
    settings = {**scram, "sasl.password": os.environ["SASL_PASSWORD"]}
    try:
        AdminClient({**scram, "sasl.password": "another"}).list_topics(timeout=3)
        raise SystemExit("a wrong password is let in")
    except KafkaException:
        pass

producer = Producer(settings)
producer.produce(os.environ["TOPIC"], key="Ada", value="hello, Ada")
assert producer.flush(30) == 0

consumer = Consumer({**settings, "group.id": os.environ["GROUP"], "auto.offset.reset": "earliest"})
consumer.subscribe([os.environ["TOPIC"]])
deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    record = consumer.poll(1.0)
    if record is not None and not record.error():
        print(record.value().decode())
        break
consumer.close()
