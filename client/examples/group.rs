//! Two members of a group share a topic's partitions, and take over from each other when one leaves.
//!
//! Needs the topic `orders`: `headwater topic create orders --partitions 4`.
//! `cargo run --release -p headwater-client --example group`

use headwater_client::{Client, ConsumerRecord, Error, PartitionIndex, RebalanceListener, TopicName};
use tokio::sync::{mpsc, watch};

/// Prints what a member gets and gives up.
struct Named(&'static str);

impl RebalanceListener for Named {
    fn assigned(&self, partitions: &[(TopicName, PartitionIndex)]) {
        println!("{} reads {} partitions more", self.0, partitions.len());
    }

    // What is kept for a partition in memory is to be written out here.
    fn revoked(&self, partitions: &[(TopicName, PartitionIndex)]) {
        println!("{} reads {} partitions less", self.0, partitions.len());
    }
}

/// Handles so many records with two members; returns who handled which.
pub async fn run(client: &Client, records: usize) -> Result<Vec<(&'static str, ConsumerRecord)>, Error> {
    let (handled, mut all) = mpsc::channel(100);
    let (stop, stopped) = watch::channel(());
    let members: Vec<_> = ["anna", "bert"]
        .map(|name| tokio::spawn(work(client.clone(), name, handled.clone(), stopped.clone())))
        .into();
    // Those of the members are the only ones from here on: if both fail there is nothing to wait for.
    drop(handled);
    let mut done = Vec::new();
    while done.len() < records
        && let Some(one) = all.recv().await
    {
        done.push(one);
    }
    drop(stop);
    for member in members {
        member.await.map_err(|_panicked| Error::Closed)??;
    }
    Ok(done)
}

async fn work(
    client: Client,
    name: &'static str,
    handled: mpsc::Sender<(&'static str, ConsumerRecord)>,
    mut stopped: watch::Receiver<()>,
) -> Result<(), Error> {
    let consumer = client
        .group_consumer("workers")
        .topics(["orders"])
        .listener(Named(name));
    let mut consumer = consumer.build().await?;
    loop {
        let record = tokio::select! {
            record = consumer.recv() => record,
            _ = stopped.changed() => break,
        };
        match record {
            // When the next one is asked for this one counts as processed, and is committed within five seconds.
            Ok(record) => drop(handled.send((name, record)).await),
            // Told once: others have the partitions, and what was not committed comes again. The consumer has joined again.
            Err(Error::PartitionsLost { .. } | Error::PollIntervalExceeded { .. }) => println!("{name} was too slow"),
            Err(error) => return Err(error),
        }
    }
    // Commits and leaves: the other takes over at once, and not only when the session has timed out.
    consumer.close().await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::builder().bootstrap(["127.0.0.1:9292"]);
    let client = client.set_from_env("HEADWATER_CLIENT_")?.build().await?;
    run(&client, 100).await.map(drop)
}
