//! A command's connection to a broker, and the look-ups that many commands begin with.

use std::io;
use std::time::Duration;

use futures::StreamExt as _;
use headwater_client::{Admin, Client, Error, OffsetSpec, PartitionIndex, TopicDescription};

use crate::args::Global;
use crate::failure::{CONNECTION_HINT, Failure, TLS_HINT, chain};
use crate::screen::Screen;

/// How old the knowledge of topics may become: somebody may watch who has just added partitions.
const METADATA_AGE_MAX: Duration = Duration::from_secs(3);

/// Most edits between a name that is not there and one that may have been meant, as a share of its length.
const NEAR: f64 = 0.4;

/// How many answers are waited for at the same time.
const ASKED_AT_ONCE: usize = 16;

/// The client and where results go.
#[derive(Debug)]
pub struct Session {
    pub client: Client,
    pub admin: Admin,
    pub screen: Screen,
    /// How long to wait for an answer.
    pub timeout: Duration,
}

/// The first and the next offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub partition: PartitionIndex,
    pub start: u64,
    pub end: u64,
}

impl Session {
    /// Connects, or fails at once where nobody listens.
    pub async fn open(global: &Global) -> Result<Self, Failure> {
        let Global {
            server,
            output,
            timeout,
            tls,
            ..
        } = global;
        let mut builder = tls.tell(Client::builder());
        if let Some(path) = &global.token_file {
            builder = builder.token_file(path);
        } else if let Some(user) = &global.user {
            builder = builder.user(user.as_str(), password(global)?);
        }
        let client = builder
            .bootstrap([server])
            .bootstrap_timeout(Duration::ZERO)
            .connect_timeout(*timeout)
            .request_timeout(*timeout)
            .call_timeout(*timeout)
            .metadata_age_max(METADATA_AGE_MAX)
            .build()
            .await
            .map_err(|error| match error {
                Error::Config {
                    setting: "bootstrap",
                    reason,
                } => Failure::usage(format!("--server {server}: {reason}")),
                error @ Error::Config { .. } => Failure::usage(error.to_string()),
                Error::Connect { ref source, .. } if source.kind() == io::ErrorKind::InvalidData => {
                    Failure::connection(chain(&error)).hint(TLS_HINT)
                }
                error => Failure::connection(chain(&error)).hint(CONNECTION_HINT),
            })?;
        let admin = client.admin();
        Ok(Self {
            client,
            admin,
            screen: Screen::new(*output),
            timeout: *timeout,
        })
    }

    /// The topic, or what may have been meant instead.
    pub async fn topic(&self, name: &str) -> Result<TopicDescription, Failure> {
        match self.admin.describe_topic(name).await {
            Ok(topic) => Ok(topic),
            Err(error) => Err(self.topic_failure(&format!("look up topic {name}"), name, &error).await),
        }
    }

    /// These topics, each once.
    pub async fn topics(&self, names: &[String]) -> Result<Vec<TopicDescription>, Failure> {
        let mut topics: Vec<TopicDescription> = Vec::with_capacity(names.len());
        for name in names {
            if topics.iter().all(|topic| topic.name.as_str() != name) {
                topics.push(self.topic(name).await?);
            }
        }
        Ok(topics)
    }

    /// Those of the topics that are still there, in their order.
    pub async fn describe_all(&self, names: impl Iterator<Item = &str>) -> Result<Vec<TopicDescription>, Failure> {
        let look_ups = futures::stream::iter(names).map(async |name| (name, self.admin.describe_topic(name).await));
        let mut look_ups = look_ups.buffered(ASKED_AT_ONCE);
        let mut topics = Vec::new();
        while let Some((name, topic)) = look_ups.next().await {
            match topic {
                Ok(topic) => topics.push(topic),
                Err(Error::UnknownTopic(_)) => {}
                Err(error) => return Err(Failure::client(&format!("look up topic {name}"), &error)),
            }
        }
        Ok(topics)
    }

    /// The failure of a call about a topic, which may be that there is none.
    pub async fn topic_failure(&self, doing: &str, name: &str, error: &Error) -> Failure {
        if !matches!(error, Error::UnknownTopic(_)) {
            return Failure::client(doing, error);
        }
        let topics = self.admin.topics().await.unwrap_or_default();
        let names = topics.iter().map(|topic| topic.name.as_str());
        Failure::not_found(format!("there is no topic {name}")).hint(match nearest(name, names) {
            Some(near) => format!("did you mean {near}? `headwater topic list` lists all topics"),
            None => format!("`headwater topic list` lists all topics, `headwater topic create {name}` creates it"),
        })
    }

    /// The failure of a call about a group, which may be that there is none.
    pub async fn group_failure(&self, doing: &str, group: &str, error: &Error) -> Failure {
        if error.code() != Some(headwater_client::ErrorCode::GroupIdNotFound) {
            return Failure::client(doing, error);
        }
        let groups = self.admin.groups().list().await.unwrap_or_default();
        let names = groups.iter().map(|group| group.group_id.as_str());
        let meant = nearest(group, names).map_or_else(String::new, |near| format!("did you mean {near}? "));
        Failure::not_found(format!("there is no group {group}"))
            .hint(format!("{meant}`headwater group list` lists all groups"))
    }

    /// Where the topic's partitions begin and end, for those that are asked for or all.
    pub async fn ends(&self, topic: &TopicDescription, wanted: &[i32]) -> Result<Vec<Ends>, Failure> {
        let name = topic.name.as_str();
        let partitions = chosen(topic, wanted)?;
        let (starts, ends) = futures::try_join!(
            self.offsets(name, &partitions, OffsetSpec::Earliest),
            self.offsets(name, &partitions, OffsetSpec::Latest)
        )?;
        let ends = partitions.into_iter().zip(starts).zip(ends);
        let ends = ends.map(|((partition, start), end)| Ends {
            partition,
            start: start.unwrap_or_default(),
            end: end.unwrap_or_default(),
        });
        Ok(ends.collect())
    }

    /// An offset of each partition; `None` where no record is as late as the timestamp.
    pub async fn offsets(
        &self,
        topic: &str,
        partitions: &[PartitionIndex],
        spec: OffsetSpec,
    ) -> Result<Vec<Option<u64>>, Failure> {
        let look_ups = partitions
            .iter()
            .map(async |partition| self.admin.list_offset(topic, *partition, spec).await);
        let offsets = futures::future::try_join_all(look_ups).await;
        let offsets = offsets.map_err(|error| Failure::client(&format!("look up offsets of topic {topic}"), &error))?;
        Ok(offsets
            .into_iter()
            .map(|offset| offset.map(headwater_client::Offset::get))
            .collect())
    }
}

/// The password of whoever uses the program: never an argument, which everybody on the machine could read.
fn password(global: &Global) -> Result<String, Failure> {
    let Some(path) = &global.password_file else {
        let password = std::env::var("HEADWATER_PASSWORD");
        return password.map_err(|_absent| {
            Failure::usage("there is a user and no password")
                .hint("--password-file names a file that has it; the environment's HEADWATER_PASSWORD may be it")
        });
    };
    let place = path.display();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Failure::failed(format!("cannot read {place}: {error}")))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(Failure::failed(format!(
            "the first line of {place} is empty; the password should be there"
        ))),
    }
}

/// The partitions that were asked for, or all.
pub fn chosen(topic: &TopicDescription, wanted: &[i32]) -> Result<Vec<PartitionIndex>, Failure> {
    let count = topic.partitions.len();
    if let Some(missing) = wanted
        .iter()
        .find(|number| usize::try_from(**number).map_or(true, |index| index >= count))
    {
        let name = &topic.name;
        return Err(
            Failure::not_found(format!("topic {name} has no partition {missing}")).hint(format!(
                "its partitions are 0 to {}; `headwater topic describe {name}` shows them",
                count - 1
            )),
        );
    }
    if wanted.is_empty() {
        return Ok(topic.partitions.iter().map(|partition| partition.partition).collect());
    }
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    Ok(wanted.into_iter().map(PartitionIndex::new).collect())
}

/// The name that looks most like this one, if any does.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| strsim::osa_distance(name, other);
    let near = names.min_by_key(|other| distance(other))?;
    let allowed = (name.chars().count() as f64 * NEAR).ceil() as usize;
    (distance(near) <= allowed).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_slip_is_found_and_another_name_is_not() {
        let names = ["orders", "payments"];
        assert_eq!(nearest("ordres", names.into_iter()), Some("orders"));
        assert_eq!(nearest("payment", names.into_iter()), Some("payments"));
        assert_eq!(nearest("zebra", names.into_iter()), None);
        assert_eq!(nearest("zebra", [].into_iter()), None);
    }
}
