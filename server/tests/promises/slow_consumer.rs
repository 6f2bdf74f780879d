//! A consumer that stops reading costs the broker its socket and no more, and later reads everything, from disk.

use headwater_client::Record;
use headwater_protocol::id::Offset;

use crate::support::{Raw, Site, fetch, read_topic, run, values};

/// Far more than the tail buffers and the sockets hold.
const RECORDS: u64 = 3_000;
const VALUE_LEN: usize = 20_000;

/// The budgets of the one core, and slack for the allocator.
const RESIDENT_BYTES_MAX: u64 = (8 + 16 + 16 + 128) << 20;

fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(VALUE_LEN, number as u8);
    value
}

#[test]
fn a_consumer_that_stops_reading_slows_nobody_and_reads_everything_later() {
    run(async {
        let site = Site::new().cores(1);
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        let producer = client.producer().build().await.unwrap();
        producer
            .send(Record::to("t").value(&value(0)))
            .await
            .unwrap()
            .await
            .unwrap();

        // Asks again and again for what will fill its socket many times, and reads none of it.
        let mut stopped = Raw::connect(site.core_address(0)).await;
        for _ in 0..50 {
            stopped.send(&fetch(topic, &[(0, 0)], 0, 1), &[]).await;
        }
        let mut deliveries = Vec::new();
        for number in 1..RECORDS {
            deliveries.push(producer.send(Record::to("t").value(&value(number))).await.unwrap());
            if number % 500 == 0 {
                stopped.send(&fetch(topic, &[(0, 0)], 0, 1), &[]).await;
            }
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        // Another consumer reads all of it meanwhile.
        let read = read_topic(&client, "t").await;
        assert_eq!(read[0].len() as u64, RECORDS);
        let resident = broker.resident_bytes();
        assert!(resident < RESIDENT_BYTES_MAX, "{resident} bytes are resident");

        // Now it reads what it asked for, and then the rest: from disk, as the tail has long moved on.
        for _ in 0..50 + (RECORDS - 1) / 500 {
            let reply = stopped.receive().await.expect("the broker has kept the connection");
            assert_eq!(values(&reply.payload)[0], value(0));
        }
        let mut next = Offset::ZERO;
        while next.get() < RECORDS {
            let reply = stopped.call(&fetch(topic, &[(0, next.as_i64())], 0, 1), &[]).await;
            let values = values(&reply.payload);
            let first = RECORDS.min(u64::from_be_bytes(values[0][..8].try_into().unwrap()));
            for (number, found) in (first..).zip(&values) {
                assert_eq!(*found, value(number), "record {number}");
            }
            next = Offset::new(first + values.len() as u64);
        }
        broker.stop();
    });
}
