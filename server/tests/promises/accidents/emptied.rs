//! A broker comes back with an empty data directory: it has forgotten what it has promised, and must not vote or lead as if it knew.

use headwater_client::BrokerId;

use super::Trouble;
use crate::support::{await_list, run};

const EMPTIED: usize = 2;

#[test]
fn a_broker_whose_disk_was_emptied_takes_no_part_until_it_is_added_again_and_then_has_everything() {
    run(async {
        let mut trouble = Trouble::start().await;
        trouble.go_on(500).await;
        trouble.cluster.kill(EMPTIED);
        std::fs::remove_dir_all(trouble.cluster.sites[EMPTIED].directory()).unwrap();
        let waiting = trouble.cluster.sites[EMPTIED].launch();
        waiting.await_line("this member waits until it belongs to a quorum");
        trouble.go_on(500).await;
        let list = await_list(&trouble.client, "it is not there", |list| {
            list.brokers[EMPTIED].is_fenced
        })
        .await;
        assert_eq!((list.brokers[EMPTIED].in_sync, list.brokers[EMPTIED].leads), (0, 0));

        // With one other it is no majority: what it would agree to it might have agreed to otherwise before.
        trouble.cluster.kill(1);
        trouble.assert_agrees_on_nothing(0).await;
        trouble.cluster.start_one(1);

        // What the operator's page says.
        let admin = trouble.client.admin();
        let number = BrokerId::new(EMPTIED as i32);
        admin.remove_quorum_member(number).await.unwrap();
        let address = trouble.cluster.sites[EMPTIED].peer_address();
        admin.add_quorum_members(&[(number, address)]).await.unwrap();
        waiting.await_ready();
        trouble.cluster.brokers[EMPTIED] = Some(waiting);
        trouble.await_well().await;
        trouble.go_on(200).await;
        trouble.end().await;
    });
}
