//! Kills brokers one after another, and starts each again: in turn the leader of a partition, and the active coordinator.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::FailoverArgs;
use super::kill::Death;
use crate::brokers::cluster::Members;
use crate::error::BenchError;
use crate::load::clock::Moment;
use crate::run::host::Host;
use crate::target::{Replicas, Target};

/// How long a broker may take to be in sync again.
const IN_SYNC_WITHIN: Duration = Duration::from_mins(5);

/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(50);

/// How brokers are killed and started.
#[derive(Debug, Clone)]
enum Means {
    /// Those that the bench has started, with so many numbers of nodes each.
    Processes(Members, i32),
    /// By the user's commands.
    Commands { kill: String, restart: String },
}

/// What in a command stands for the number of the broker.
pub const PLACE: &str = "{broker}";

/// Kills brokers.
#[derive(Debug)]
pub struct Killer {
    means: Means,
    kills: u16,
    interval: Duration,
    down: Duration,
}

impl Killer {
    /// As the options say.
    pub fn new(args: &FailoverArgs, host: &Host) -> Result<Self, BenchError> {
        let means = match (host, &args.kill_command, &args.restart_command) {
            (Host::Cluster(brokers), None, None) => Means::Processes(brokers.members(), brokers.nodes_each),
            (Host::Running { .. }, Some(kill), Some(restart)) => Means::Commands {
                kill: kill.clone(),
                restart: restart.clone(),
            },
            (Host::Running { .. }, ..) => {
                return Err(BenchError::Options(
                    "say how running brokers are killed and started, with --kill-command and --restart-command".into(),
                ));
            }
            _ => {
                return Err(BenchError::Options(
                    "several brokers are needed, of which one can be killed: --brokers 3".into(),
                ));
            }
        };
        Ok(Self {
            means,
            kills: args.kills,
            interval: Duration::from_secs_f64(args.interval),
            down: Duration::from_secs_f64(args.down),
        })
    }

    /// Kills as often as it should, with the time in between.
    pub async fn run<T: Target>(&self, target: &T, topic: &str) -> Result<Vec<Death>, BenchError> {
        let mut deaths = Vec::new();
        self.await_in_sync(target, topic).await?;
        for number in 0..self.kills {
            tokio::time::sleep(self.interval).await;
            let mut replicas = target.replicas(topic).await?;
            for leader in replicas.leaders.iter_mut().flatten() {
                *leader = self.means.broker_of(*leader);
            }
            let broker = victim(number, &replicas)
                .ok_or_else(|| BenchError::Options(format!("no partition of the topic {topic} has a leader")))?;
            let led = (0..)
                .zip(&replicas.leaders)
                .filter(|(_, leader)| **leader == Some(broker));
            let led = led.map(|(index, _)| index).collect();
            let killed = Moment::now();
            self.means.kill(broker).await?;
            tokio::time::sleep(self.down).await;
            let restarted = Moment::now();
            self.means.restart(broker).await?;
            self.await_in_sync(target, topic).await?;
            deaths.push(Death {
                broker,
                led,
                was_coordinator: replicas.coordinator.map(|coordinator| coordinator == broker),
                killed,
                restarted,
                in_sync: Moment::now(),
            });
        }
        // What comes after the last one is looked at as well.
        tokio::time::sleep(self.interval).await;
        Ok(deaths)
    }

    async fn await_in_sync<T: Target>(&self, target: &T, topic: &str) -> Result<(), BenchError> {
        let deadline = Instant::now() + IN_SYNC_WITHIN;
        while !target.replicas(topic).await?.all_in_sync {
            if Instant::now() >= deadline {
                return Err(BenchError::Options(format!(
                    "the replicas of {topic} are not all in sync after {} s: see what the brokers log, with --keep",
                    IN_SYNC_WITHIN.as_secs()
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Who dies next.
fn victim(number: u16, replicas: &Replicas) -> Option<i32> {
    let coordinator = replicas.coordinator.filter(|_| number % 2 == 1);
    let count = replicas.leaders.len().max(1);
    let leader = || {
        let turn = usize::from(number) / 2 % count;
        let (before, from) = replicas.leaders.split_at(turn.min(replicas.leaders.len()));
        from.iter().chain(before).find_map(|leader| *leader)
    };
    coordinator.or_else(leader)
}

impl Means {
    /// The broker that a node is, or is a core of.
    fn broker_of(&self, node: i32) -> i32 {
        match self {
            Self::Processes(_, nodes_each) => node / nodes_each,
            Self::Commands { .. } => node,
        }
    }

    async fn kill(&self, broker: i32) -> Result<(), BenchError> {
        match self {
            Self::Processes(brokers, _) => {
                brokers.kill(place(broker));
                Ok(())
            }
            Self::Commands { kill, .. } => shell(kill, broker).await,
        }
    }

    async fn restart(&self, broker: i32) -> Result<(), BenchError> {
        match self {
            Self::Processes(brokers, _) => {
                let brokers = brokers.clone();
                aside(move || brokers.start_one(place(broker))).await
            }
            Self::Commands { restart, .. } => shell(restart, broker).await,
        }
    }
}

/// The bench has numbered its brokers from 0.
fn place(broker: i32) -> usize {
    usize::try_from(broker).unwrap_or(usize::MAX)
}

/// Runs a command of the user's to its end.
async fn shell(command: &str, broker: i32) -> Result<(), BenchError> {
    let text = command.replace(PLACE, &broker.to_string());
    aside(move || {
        let run = Command::new("sh").args(["-c", &text]).stdin(Stdio::null()).output();
        let run = run.map_err(BenchError::Threads)?;
        if run.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&run.stderr);
        let status = run.status;
        Err(BenchError::Options(format!(
            "`{text}` has failed ({status}): {}",
            said.trim_end()
        )))
    })
    .await
}

/// Does what blocks where it holds up nobody.
async fn aside(work: impl FnOnce() -> Result<(), BenchError> + Send + 'static) -> Result<(), BenchError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| BenchError::Threads(error.into()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(leaders: &[Option<i32>], coordinator: Option<i32>) -> Replicas {
        Replicas {
            leaders: leaders.to_vec(),
            coordinator,
            all_in_sync: true,
        }
    }

    #[test]
    fn leaders_and_the_active_coordinator_die_by_turns() {
        let known = replicas(&[Some(0), Some(1), None], Some(2));
        let victims: Vec<_> = (0..6).map(|number| victim(number, &known)).collect();
        assert_eq!(victims, [Some(0), Some(2), Some(1), Some(2), Some(0), Some(2)]);
        let unknown = replicas(&[Some(0), Some(1)], None);
        let victims: Vec<_> = (0..4).map(|number| victim(number, &unknown)).collect();
        assert_eq!(victims, [Some(0), Some(0), Some(1), Some(1)]);
        assert_eq!(victim(0, &replicas(&[None], Some(1))), None);
    }
}
