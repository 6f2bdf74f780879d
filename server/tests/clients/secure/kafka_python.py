"""kafka-python over TLS, by SCRAM-SHA-512."""

import os

from kafka import KafkaConsumer, KafkaProducer

settings = {
    "bootstrap_servers": os.environ["BOOTSTRAP"],
    "security_protocol": "SASL_SSL",
    "ssl_cafile": os.environ["TLS_CA"],
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_plain_username": os.environ["SASL_USER"],
    "sasl_plain_password": os.environ["SASL_PASSWORD"],
}

producer = KafkaProducer(**settings)
producer.send(os.environ["TOPIC"], key=b"Ada", value=b"hello, Ada").get(timeout=30)
producer.close()

consumer = KafkaConsumer(
    os.environ["TOPIC"],
    group_id=os.environ["GROUP"],
    auto_offset_reset="earliest",
    consumer_timeout_ms=30_000,
    **settings,
)
print(next(consumer).value.decode())
consumer.close()
