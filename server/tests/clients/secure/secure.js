// kafkajs over TLS, by SCRAM-SHA-512.
const fs = require('node:fs')
const { Kafka, logLevel } = require('kafkajs')

const { BOOTSTRAP, TLS_CA, SASL_USER, SASL_PASSWORD, TOPIC, GROUP } = process.env

async function main() {
  const kafka = new Kafka({
    brokers: [BOOTSTRAP],
    // An address is no name that could be asked for.
    ssl: { ca: [fs.readFileSync(TLS_CA)], servername: '' },
    sasl: { mechanism: 'scram-sha-512', username: SASL_USER, password: SASL_PASSWORD },
    logLevel: logLevel.ERROR,
  })
  const producer = kafka.producer()
  await producer.connect()
  await producer.send({ topic: TOPIC, messages: [{ key: 'Ada', value: 'hello, Ada' }] })
  await producer.disconnect()

  const consumer = kafka.consumer({ groupId: GROUP })
  await consumer.subscribe({ topic: TOPIC, fromBeginning: true })
  await new Promise((resolve) => {
    const eachMessage = async ({ message }) => resolve(console.log(message.value.toString()))
    consumer.run({ eachMessage })
  })
  await consumer.disconnect()
}

main()
