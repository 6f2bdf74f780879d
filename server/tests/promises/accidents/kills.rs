//! Brokers are killed at random moments: while they serve, stop, start, or catch up.

use std::{io::Write as _, time::Duration};

use rand::{RngExt as _, rngs::SmallRng};
use rustix::process::Signal;

use super::Trouble;
use crate::support::{Seed, await_all_in_sync, await_all_there, run_within};

/// Beyond so many kills somebody wants to know how far it is.
const KILLS: u64 = 10;

/// What a kill takes at most, with all that follows.
const KILL_MAX: Duration = Duration::from_secs(30);

#[test]
fn nothing_acknowledged_is_lost_whichever_broker_of_three_is_killed_and_when() {
    let mut seed = Seed::of("nothing_acknowledged_is_lost_whichever_broker_of_three_is_killed_and_when");
    let kills = seed.number("HEADWATER_CLUSTER_KILLS", KILLS);
    run_within(KILL_MAX * (kills as u32 + 1), async {
        let mut random = seed.random();
        let mut trouble = Trouble::start().await;
        let mut killed = 0;
        while killed < kills {
            killed += trouble.kill_one(&mut random).await;
            if kills > KILLS {
                let acknowledged = trouble.load.ledger.count();
                // Past the harness, which would keep it to itself.
                let _ = writeln!(
                    std::io::stderr(),
                    "{seed}: {killed} of {kills} killed, {acknowledged} records acknowledged"
                );
            }
        }
        trouble.end().await;
    });
}

impl Trouble {
    /// Kills a broker once some more has been acknowledged, and starts it again. Returns how often one was killed.
    async fn kill_one(&mut self, random: &mut SmallRng) -> u64 {
        let number = random.random_range(0..3);
        self.go_on(random.random_range(1..200)).await;
        // The moment, not a pause: an acknowledgement is only ever at the end of a write.
        tokio::time::sleep(Duration::from_micros(random.random_range(0..5_000))).await;
        if random.random_ratio(1, 4) {
            // While it hands over.
            self.cluster.brokers[number].as_ref().unwrap().signal(Signal::TERM);
            tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        }
        self.cluster.kill(number);
        let mut killed = 1;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        while random.random_ratio(1, 5) {
            let broker = self.cluster.sites[number].launch();
            tokio::time::sleep(Duration::from_millis(random.random_range(0..500))).await;
            broker.kill();
            killed += 1;
        }
        self.cluster.start_one(number);
        // Sometimes the next one dies while this one still catches up: then nothing is acknowledged until it has.
        if random.random_ratio(2, 3) {
            await_all_there(&self.client).await;
            await_all_in_sync(&self.client).await;
        }
        killed
    }
}
