//! A producer: sends its records, and those that were not acknowledged again, until all are.

use std::{cell::Cell, collections::VecDeque, io, net::SocketAddr, rc::Rc, time::Duration};

use headwater_protocol::{
    batch::{BatchBuilder, Compression},
    id::{CorrelationId, ProducerEpoch, ProducerId, Sequence, TopicId},
    schema::{
        InitProducerIdRequestT, InitProducerIdResponse, MetadataRequestT, MetadataResponse, ProduceRequestT,
        ProduceResponse, UuidT,
    },
};

use super::{
    ledger::{Ledger, Sent},
    scenario::TOPIC,
    wire::{Reply, Wire, check, patiently, tell},
};
use crate::machine::{self, simulated::here};

/// Batches of an idempotent producer that are not acknowledged.
const UNDER_WAY_MAX: usize = 5;

/// Where a partition is.
pub(super) struct Place {
    pub(super) topic: TopicId,
    pub(super) address: SocketAddr,
}

/// Asks the broker where a partition is; now and then answers with another core, which passes on what comes to it.
pub(super) async fn find(address: SocketAddr, partition: i32) -> io::Result<Place> {
    let mut wire = patiently(Wire::open(address)).await?;
    let topics = Some(vec![TOPIC.to_owned()]);
    let reply = wire.ask(&MetadataRequestT { topics }).await?;
    let metadata = reply.read::<MetadataResponse<'_>>()?.unpack();
    check(metadata.error)?;
    let topic = metadata.topics.unwrap_or_default().into_iter().next();
    let topic = topic.ok_or_else(|| io::Error::other("the metadata has no topic"))?;
    check(topic.error)?;
    let partitions = topic.partitions.unwrap_or_default();
    let found = partitions.iter().find(|found| found.partition == partition);
    let found = found.ok_or_else(|| io::Error::other("the topic has no such partition"))?;
    let broker = metadata.brokers.unwrap_or_default().into_iter().next();
    let ports = broker.and_then(|broker| broker.core_ports).unwrap_or_default();
    let mut core = usize::from(found.core);
    if let Some(here) = here()
        && here.world.chance(0.3)
    {
        core = here.world.draw(0..ports.len());
    }
    let port = ports.get(core).ok_or_else(|| io::Error::other("no such core"))?;
    Ok(Place {
        topic: TopicId::from(&topic.id.unwrap_or_default()),
        address: SocketAddr::new(address.ip(), *port),
    })
}

/// A batch that is not acknowledged.
struct Batch {
    bytes: Vec<u8>,
    records: Vec<Sent>,
    /// Its request, if it was sent on this connection.
    request: Option<CorrelationId>,
}

pub(super) struct Producer {
    pub(super) number: u32,
    pub(super) partition: i32,
    pub(super) is_idempotent: bool,
    /// Records to send, at most.
    pub(super) count: u32,
    /// Between two batches, at most.
    pub(super) pause: Duration,
    /// Nothing new is sent any more.
    pub(super) is_calm: Rc<Cell<bool>>,
    pub(super) address: SocketAddr,
    pub(super) ledger: Rc<Ledger>,
}

/// What a producer remembers from connection to connection.
#[derive(Default)]
struct Memory {
    id: Option<(ProducerId, ProducerEpoch)>,
    made: u32,
    waiting: VecDeque<Batch>,
}

impl Producer {
    /// Works until everything is acknowledged.
    pub(super) async fn run(self) {
        let mut memory = Memory::default();
        loop {
            match self.send_all(&mut memory).await {
                Ok(()) => return tell("is done"),
                Err(error) => {
                    tell(&format!("has to try again: {error}"));
                    pause(Duration::from_millis(400)).await;
                }
            }
        }
    }

    async fn send_all(&self, memory: &mut Memory) -> io::Result<()> {
        let place = find(self.address, self.partition).await?;
        let mut wire = patiently(Wire::open(place.address)).await?;
        if self.is_idempotent && memory.id.is_none() {
            memory.id = Some(new_id(&mut wire).await?);
        }
        for batch in &mut memory.waiting {
            batch.request = None;
        }
        let most = if self.is_idempotent { UNDER_WAY_MAX } else { 1 };
        loop {
            while !self.has_made_all(memory) && memory.waiting.len() < most {
                self.make_batch(memory);
                if machine::random::<u32>().is_multiple_of(3) {
                    break;
                }
            }
            for batch in &mut memory.waiting {
                if batch.request.is_none() {
                    let head = ProduceRequestT {
                        topic_id: Some(UuidT::from(place.topic)),
                        partition: self.partition,
                        acks: -1,
                        timeout_ms: 5_000,
                    };
                    batch.request = Some(patiently(wire.send(&head, &batch.bytes)).await?);
                }
            }
            if memory.waiting.is_empty() {
                return Ok(());
            }
            let reply = patiently(wire.receive()).await?;
            self.settle(memory, &reply)?;
            if !self.is_calm.get() {
                pause(self.pause).await;
            }
        }
    }

    fn has_made_all(&self, memory: &Memory) -> bool {
        self.is_calm.get() || memory.made == self.count
    }

    fn settle(&self, memory: &mut Memory, reply: &Reply) -> io::Result<()> {
        let produced = reply.read::<ProduceResponse<'_>>()?;
        check(produced.error()).inspect_err(|error| {
            tell(&format!("{error}: {}", produced.message().unwrap_or_default()));
        })?;
        let place = memory.waiting.iter().position(|batch| batch.request == Some(reply.id));
        let place = place.expect("the broker answers something that was not asked");
        let batch = memory.waiting.remove(place).expect("it was just found");
        self.ledger
            .promise(self.partition, &batch.records, produced.base_offset());
        Ok(())
    }

    fn make_batch(&self, memory: &mut Memory) {
        let count = machine::random::<u32>() % 4 + 1;
        let first = memory.made;
        let last = (first + count).min(self.count);
        let mut builder = BatchBuilder::new(Compression::None, 256);
        if let Some((id, epoch)) = memory.id {
            builder.set_producer(id, epoch, Sequence::new(first.cast_signed()));
        }
        let records: Vec<Sent> = (first..last)
            .map(|number| Sent {
                producer: self.number,
                number,
                is_idempotent: self.is_idempotent,
            })
            .collect();
        for record in &records {
            let appended = builder.append(machine::wall(), None, Some(&record.value()), &[]);
            appended.expect("the values are small");
        }
        memory.made = last;
        memory.waiting.push_back(Batch {
            bytes: builder.build().bytes().to_vec(),
            records,
            request: None,
        });
    }
}

async fn new_id(wire: &mut Wire) -> io::Result<(ProducerId, ProducerEpoch)> {
    let head = InitProducerIdRequestT {
        producer_id: -1,
        producer_epoch: -1,
    };
    let reply = wire.ask(&head).await?;
    let given = reply.read::<InitProducerIdResponse<'_>>()?;
    check(given.error())?;
    Ok((
        ProducerId::new(given.producer_id()),
        ProducerEpoch::new(given.producer_epoch()),
    ))
}

/// Waits for so long at most.
pub(super) async fn pause(most: Duration) {
    machine::sleep(most.mul_f64(machine::random::<f64>())).await;
}
