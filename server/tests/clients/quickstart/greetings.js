const { Kafka } = require('kafkajs')

async function main() {
  const kafka = new Kafka({ brokers: ['127.0.0.1:9092'] })
  const producer = kafka.producer()
  await producer.connect()
  await producer.send({ topic: 'greetings', messages: [{ key: 'Ada', value: 'hello, Ada' }] })
  await producer.disconnect()

  const consumer = kafka.consumer({ groupId: 'readers' })
  await consumer.subscribe({ topic: 'greetings', fromBeginning: true })
  await consumer.run({ eachMessage: async ({ message }) => console.log(message.offset, message.value.toString()) })
  setTimeout(() => consumer.disconnect(), 10_000)
}

main()
