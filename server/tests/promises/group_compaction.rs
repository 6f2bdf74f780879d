//! Groups whose records have been compacted: what is read again is what there was, and what was deleted stays deleted.

use headwater_client::{
    Client, CommittedOffset, ErrorCode, GroupDescription, GroupListing, OffsetSpec, PartitionIndex, Start,
};
use headwater_protocol::schema::{DeleteGroupRequestT, OffsetDeleteRequestT, TopicPartitionsT};

use crate::{
    compaction::{scrape, value},
    groups::{Member, TOPIC, code, commit_request, connect, filled},
    support::{Raw, Site, run},
};

const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Groups without members, whose offsets are committed over and over.
const SIMPLE: [&str; 3] = ["one", "two", "three"];
/// It is deleted and made again all the time.
const REBORN: &str = "reborn";
/// It is deleted, and never comes back.
const GONE: &str = "gone-for-good";
/// It has a member.
const LIVE: &str = "live";

const PARTITIONS: i32 = 4;
const RECORDS: i64 = 200;

/// Tombstones go as soon as they may, so that a deletion must not depend on them.
fn site() -> Site {
    Site::new()
        .cores(1)
        .set("groups.offsets_partitions", "1")
        .set("groups.offsets_segment_size_bytes", "64KiB")
        .set("groups.initial_rebalance_delay_ms", "50ms")
        .set("compaction.check_interval_ms", "10ms")
        .set("compaction.dirty_ratio_min", "0")
        .set("compaction.delete_retention_ms", "0ms")
        .set("compaction.bytes_per_second_max", "1GiB")
        .set("log.checkpoint_interval_ms", "20ms")
        .with_metrics()
}

/// All that can be asked about groups.
#[derive(Debug, PartialEq)]
struct State {
    listed: Vec<GroupListing>,
    groups: Vec<(GroupDescription, Vec<CommittedOffset>)>,
}

async fn state(client: &Client) -> State {
    let admin = client.admin().groups();
    let listed = admin.list().await.unwrap();
    let mut groups = Vec::new();
    for group in &listed {
        let described = admin.describe(&group.group_id).await.unwrap();
        groups.push((described, admin.committed_offsets(&group.group_id).await.unwrap()));
    }
    State { listed, groups }
}

/// The keys of all records that the internal topic has. The last one must be of an offset that is committed.
async fn keys(client: &Client) -> Vec<Vec<u8>> {
    let admin = client.admin();
    let end = admin.list_offsets(OFFSETS_TOPIC, OffsetSpec::Latest).await.unwrap()[0].unwrap();
    let consumer = client.consumer().assign(OFFSETS_TOPIC, [PartitionIndex::new(0)]);
    let mut consumer = consumer.start(Start::Earliest).build().await.unwrap();
    let mut keys = Vec::new();
    loop {
        let record = consumer.recv().await.unwrap();
        keys.push(record.key.unwrap().to_vec());
        if record.offset.next() >= end {
            return keys;
        }
    }
}

fn is_of(key: &[u8], group: &str) -> bool {
    key.windows(group.len()).any(|part| part == group.as_bytes())
}

async fn commit(raw: &mut Raw, group: &str, offset: i64) {
    let offsets: Vec<_> = (0..PARTITIONS).map(|partition| (partition, offset)).collect();
    let mut request = commit_request(group, &offsets);
    for one in request.offsets.iter_mut().flatten() {
        one.metadata = Some(format!("at {offset:0500}"));
    }
    let answer = raw.call(&request, &[]).await.offset_commit();
    assert_eq!(
        (code(answer.error), answer.errors),
        (ErrorCode::None, Some(vec![0; PARTITIONS as usize]))
    );
}

async fn delete(raw: &mut Raw, group: &str) {
    let request = DeleteGroupRequestT {
        group_id: Some(group.to_owned()),
    };
    assert_eq!(
        code(raw.call(&request, &[]).await.delete_group().error),
        ErrorCode::None
    );
}

async fn forget(raw: &mut Raw, group: &str, partition: i32) {
    let request = OffsetDeleteRequestT {
        group_id: Some(group.to_owned()),
        topics: Some(vec![TopicPartitionsT {
            topic: Some(TOPIC.to_owned()),
            partitions: Some(vec![partition]),
        }]),
    };
    assert_eq!(raw.call(&request, &[]).await.offset_delete().errors, Some(vec![0]));
}

/// Commits of all groups, deletions, and last an offset that stays.
async fn round(member: &mut Member, offset: i64) {
    let offsets: Vec<_> = (0..PARTITIONS).map(|partition| (partition, offset)).collect();
    assert_eq!(member.commit(&offsets).await, [ErrorCode::None; PARTITIONS as usize]);
    commit(&mut member.raw, REBORN, offset).await;
    delete(&mut member.raw, REBORN).await;
    forget(&mut member.raw, SIMPLE[0], 1).await;
    for group in SIMPLE {
        commit(&mut member.raw, group, offset).await;
    }
    forget(&mut member.raw, SIMPLE[0], 2).await;
    let again = commit_request(REBORN, &[(3, offset)]);
    assert_eq!(member.raw.call(&again, &[]).await.offset_commit().errors, Some(vec![0]));
}

#[test]
fn groups_are_the_same_after_their_records_were_compacted_and_the_broker_was_killed() {
    let site = site();
    run(async {
        let mut broker = site.start();
        filled(&site, PARTITIONS, RECORDS as usize).await;
        let client = site.client().await;
        let mut member = Member::new(&site, LIVE).await;
        member.session_ms = 600_000;
        member.join().await;
        commit(&mut member.raw, GONE, 1).await;
        delete(&mut member.raw, GONE).await;
        commit(&mut member.raw, SIMPLE[0], 1).await;
        let mut offset = 0;
        for _ in 0..3 {
            // Until all that is left is what counts, and the end that is not compacted yet.
            let removed = "compaction_removed_records_total{core=\"0\"}";
            while value(&scrape(&site), removed) < 500.0 || keys(&client).await.iter().any(|key| is_of(key, GONE)) {
                for _ in 0..10 {
                    offset = offset % RECORDS + 1;
                    round(&mut member, offset).await;
                }
            }
            let before = state(&client).await;
            let names: Vec<_> = before.listed.iter().map(|group| &*group.group_id).collect();
            assert_eq!(names, [LIVE, SIMPLE[0], REBORN, SIMPLE[2], SIMPLE[1]]);
            let committed: Vec<_> = before.groups.iter().map(|(_, offsets)| offsets.len()).collect();
            assert_eq!(committed, [4, 3, 1, 4, 4]);
            broker.kill();
            broker = site.start();
            assert_eq!(state(&client).await, before);
            member.raw = connect(&site, LIVE).await;
        }
        broker.stop();
    });
}
