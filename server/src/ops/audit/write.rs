//! The task of a core that writes the audit log down, and the topic `__audit`.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use headwater_protocol::{
    batch::{BatchBuilder, Compression},
    error::ErrorCode,
    id::Timestamp,
};

use super::Decision;
use crate::{
    config::AuditLevel,
    core::{mesh::CoreMessage, warn_seldom},
    image::TopicState,
    machine,
    model::{id::PartitionId, internal::AUDIT_TOPIC, op::NewTopic},
    ops::Ops,
};

/// How often what waits is written down.
const WRITE_EVERY: Duration = Duration::from_millis(200);

/// How often it is tried to make the topic.
const MAKE_EVERY: Duration = Duration::from_secs(10);

/// Bytes that a partition of the topic keeps.
const RETENTION_BYTES: u64 = 256 << 20;
const SEGMENT_BYTES: u64 = 32 << 20;

/// Writes down what was decided, until the core stops.
pub(crate) async fn keep(ops: Rc<Ops>) {
    let (audit, security) = (&ops.access.audit, &ops.core.config.security);
    if audit.level == AuditLevel::Off {
        return;
    }
    let interval = Duration::from_millis(security.audit_interval_ms.get());
    let mut due = machine::now() + interval;
    let mut make_at = machine::now();
    loop {
        let is_over = machine::until(machine::now() + WRITE_EVERY, ops.core.stopping())
            .await
            .is_some();
        if is_over || machine::now() >= due {
            audit.sum_up();
            due = machine::now() + interval;
        }
        loop {
            let decisions = audit.next();
            if decisions.is_empty() {
                break;
            }
            write(&ops, &decisions, &mut make_at).await;
            machine::yield_now().await;
        }
        if is_over {
            return;
        }
    }
}

async fn write(ops: &Ops, decisions: &[Decision], make_at: &mut Instant) {
    let audit = &ops.access.audit;
    for line in decisions {
        let Decision {
            principal,
            host,
            operation,
            resource,
            name,
            verdict,
            count,
            ..
        } = line;
        let name = name.escape_debug();
        tracing::info!(target: "audit", %principal, host, operation, resource, %name, decision = verdict, count);
    }
    audit.written.set(audit.written.get() + decisions.len() as u64);
    if !ops.core.config.security.audit_topic {
        return;
    }
    if ops.partitions.image().topic(AUDIT_TOPIC).is_none() && machine::now() >= *make_at {
        *make_at = machine::now() + MAKE_EVERY;
        let made = ops.control.create_topic(new_topic(ops), false).await;
        // Another core may have been first.
        if let Err(refusal) = made
            && refusal.code != ErrorCode::TopicAlreadyExists
        {
            warn_seldom!(refusal.message, "the topic {AUDIT_TOPIC} cannot be made");
        }
    }
    let records = decisions.iter().map(serde_json::to_vec);
    let records = records.filter_map(Result::ok).collect();
    send(ops, records);
}

/// A partition for each broker, so that each leads one.
fn new_topic(ops: &Ops) -> NewTopic {
    let assignment = ops.partitions.assignment();
    let brokers = assignment.map_or(1, |assignment| assignment.brokers.len());
    let retention = ops.core.config.security.audit_retention_ms.get();
    let configs = [
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", retention.to_string()),
        ("retention.bytes", RETENTION_BYTES.to_string()),
        ("segment.bytes", SEGMENT_BYTES.to_string()),
    ];
    NewTopic {
        name: AUDIT_TOPIC.to_owned(),
        partitions: brokers.max(1) as i32,
        replication_factor: -1,
        configs: configs.map(|(key, value)| (key.to_owned(), value)).to_vec(),
        assignments: None,
    }
}

/// To the core of this broker that leads a partition of the topic.
fn send(ops: &Ops, records: Vec<Vec<u8>>) {
    let image = ops.partitions.image();
    let topic = image
        .topic(AUDIT_TOPIC)
        .filter(|topic| topic.state == TopicState::Ready);
    let assignment = ops.partitions.assignment();
    let leads = |id: &PartitionId| {
        assignment.as_ref().is_none_or(|assignment| {
            let replicas = assignment.placements.get(*id);
            replicas.is_some_and(|replicas| replicas.leader == Some(assignment.own.broker))
        })
    };
    let led = topic.and_then(|topic| {
        let ids = topic.partitions().map(|index| PartitionId { topic: topic.id, index });
        ids.into_iter().find(leads)
    });
    let Some(id) = led else {
        return ops.access.audit.drops(records.len() as u64);
    };
    let owner = id.owner(ops.core.mesh.len());
    if owner == ops.core.id {
        append(ops, id, &records);
    } else {
        ops.core.mesh.send(owner, CoreMessage::Audit { id, records });
    }
}

/// Appends what this core or another has written down.
pub(crate) fn append(ops: &Ops, id: PartitionId, records: &[Vec<u8>]) {
    let appended = ops.partitions.led(id).ok().and_then(|partition| {
        let payload = encode(records, machine::wall())?;
        partition.append(&ops.core, &payload).ok()
    });
    if appended.is_none() {
        ops.access.audit.drops(records.len() as u64);
    }
}

/// As one batch: each record is short, and they are few.
fn encode(records: &[Vec<u8>], now: Timestamp) -> Option<Vec<u8>> {
    let mut batch = BatchBuilder::new(Compression::None, 0);
    for record in records {
        batch.append(now, None, Some(record), &[]).ok()?;
    }
    Some(batch.build().bytes().to_vec())
}
