from confluent_kafka import Consumer, Producer

producer = Producer({"bootstrap.servers": "127.0.0.1:9092", "enable.idempotence": True})
producer.produce("greetings", key="Ada", value="hello, Ada")
producer.flush()

consumer = Consumer({"bootstrap.servers": "127.0.0.1:9092", "group.id": "readers", "auto.offset.reset": "earliest"})
consumer.subscribe(["greetings"])
while record := consumer.poll(10.0):
    print(record.offset(), record.value().decode())
consumer.close()
