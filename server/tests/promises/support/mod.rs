//! What all promises need: brokers, well-behaved clients and others, records that can be told apart, seeds and time limits.

mod broker;
mod certificates;
mod cluster;
mod disk;
mod load;
mod network;
mod proxy;
mod raw;
mod records;
mod site;
mod tokens;

use std::{future::Future, io::Write as _, pin::pin, time::Duration};

use rand::{SeedableRng as _, rngs::SmallRng};

pub use broker::Broker;
pub use certificates::{Authority, Certified, secure_stream, tunnel};
pub use cluster::{Cluster, LONG, await_all_in_sync, await_all_there, await_list, replicas};
pub use disk::{Ballast, MemoryFile, SmallDisk};
pub use load::{Kind, Load, check};
pub use network::Network;
pub use proxy::Proxy;
pub use raw::{
    Raw, Reply, batch, fetch, list_offsets, numbered_batch, produce, stored_values, transactional_batch, values,
};
pub use records::{Source, Stored, read_topic};
pub use site::{Site, client_of, own_ip};
pub use tokens::Issuer;

/// After so long a test counts as hung. It is no measure of speed: several of them share a slow machine.
pub const LIMIT: Duration = Duration::from_mins(5);

/// Set where tests that cannot run here must not pass.
const REQUIRED: &str = "HEADWATER_REQUIRE_ROOT_TESTS";

/// Says of a test that it cannot run here, and why; where it has to, it fails.
pub fn skip(test: &str, why: &str) {
    let reason = format!("{test} is SKIPPED: {why}\n");
    assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, but {reason}");
    // Past the harness, which would keep it to itself.
    let _ = std::io::stderr().write_all(reason.as_bytes());
}

/// Runs a test on tokio, and fails it if it hangs.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    run_within(LIMIT, test)
}

/// The same for a test that may take longer.
pub fn run_within<T>(limit: Duration, test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let result = run_on(&runtime, limit, test);
    runtime.shutdown_background();
    result
}

/// The same on a runtime that there is.
pub fn run_on<T>(runtime: &tokio::runtime::Runtime, limit: Duration, test: impl Future<Output = T>) -> T {
    runtime.block_on(async {
        let mut test = pin!(test);
        // The panic comes before the test is dropped, so that its brokers say what they know.
        let result = tokio::time::timeout(limit, test.as_mut()).await;
        result.unwrap_or_else(|_elapsed| panic!("the test hangs"))
    })
}

/// Before somebody looks again whether something has come: meanwhile whoever is to bring it has the CPUs.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// A test's seed: `HEADWATER_SEED`, or another one each time. It is printed if the test fails.
pub struct Seed {
    name: &'static str,
    number: u64,
    environment: String,
}

impl Seed {
    pub fn of(test: &'static str) -> Seed {
        Seed {
            name: test,
            number: number("HEADWATER_SEED").unwrap_or_else(|| rand::random::<u32>().into()),
            environment: String::new(),
        }
    }

    /// A number from the environment that a replay needs too.
    pub fn number(&mut self, variable: &str, default: u64) -> u64 {
        let value = number(variable).unwrap_or(default);
        self.environment = format!("{}{variable}={value} ", self.environment);
        value
    }

    pub fn random(&self) -> SmallRng {
        SmallRng::seed_from_u64(self.number)
    }
}

impl std::fmt::Display for Seed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "seed {}", self.number)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Seed {
                name,
                number: seed,
                environment,
            } = self;
            eprintln!(
                "failed with seed {seed}; again: {environment}HEADWATER_SEED={seed} cargo test -p headwater-server --test promises {name}"
            );
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|error| panic!("{variable}: {error}")))
}
