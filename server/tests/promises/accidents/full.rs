//! The disk of one broker is full: the others go on, it is said what is wrong, and when there is room it has everything again.

use headwater_client::BrokerId;

use super::{KIND, Trouble};
use crate::support::{Cluster, Kind, Site, SmallDisk, await_list, run};

/// So large that what is left of the disk is filled soon, and the whole of it is not.
const LARGE: Kind = Kind {
    value_lens: &[1_000],
    ..KIND
};

/// The broker whose disk it is.
const FULL: usize = 2;

/// Bytes that are left of it.
const ROOM: u64 = 256 << 10;

#[test]
fn a_full_disk_of_one_broker_holds_up_nobody_is_told_and_is_made_up_for_when_there_is_room() {
    let test = "a_full_disk_of_one_broker_holds_up_nobody_is_told_and_is_made_up_for_when_there_is_room";
    let Some(disk) = SmallDisk::new(test, "loop") else {
        return;
    };
    run(async {
        let small = |site: Site| site.set("log.segment_size_bytes", "2MiB");
        let sites = [Site::new(), Site::new(), Site::at(&disk.directory())].map(small);
        let mut trouble = Trouble::of(Cluster::of(sites), LARGE).await;
        trouble.expect_errors(FULL, "the log is fenced");
        trouble.expect_errors(FULL, "a partition is offline");
        let ballast = disk.fill(ROOM);
        let full = BrokerId::new(FULL as i32);
        trouble
            .await_partition("its logs have failed", |partition| {
                let replicas = &partition.replicas;
                replicas.offline.contains(&full) && !replicas.isr.contains(&full) && partition.leader != full
            })
            .await;
        let list = await_list(&trouble.client, "it counts as not in sync", |list| {
            list.under_replicated > 0
        })
        .await;
        assert!(!list.brokers[FULL].is_fenced, "the broker itself is there: {list:?}");
        assert_eq!((list.leaderless, list.under_min_isr), (0, 0), "{list:?}");
        trouble.go_on(500).await;
        ballast.free();
        trouble.await_well().await;
        trouble.end().await;
    });
}
