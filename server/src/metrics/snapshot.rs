//! What is counted, at one moment: of a core, and of all.

use headwater_engine::TimedSnapshot;
use headwater_protocol::id::CoreId;

use super::{
    families::Family,
    partitions::{GroupOffset, PartitionFigures},
    process::{DiskSpace, Process},
    quorum::QuorumFigures,
    quotas::QuotaFigures,
};

/// A core's figures at one moment.
#[derive(Debug, Default)]
pub(crate) struct CoreSnapshot {
    /// By name.
    pub(super) stages: Vec<(&'static str, TimedSnapshot)>,
    /// By family and the value of its label, if it has one.
    pub(super) samples: Vec<(Family, &'static str, f64)>,
    /// And how many were left out.
    pub(crate) partitions: (Vec<PartitionFigures>, u64),
    /// And how many were left out.
    pub(crate) group_offsets: (Vec<GroupOffset>, u64),
    /// Of all cores, told by one of them; and how many were left out.
    pub(crate) quotas: (Vec<QuotaFigures>, u64),
}

impl CoreSnapshot {
    /// Adds a stage that is measured elsewhere.
    pub(crate) fn stage(&mut self, name: &'static str, times: TimedSnapshot) {
        self.stages.push((name, times));
    }

    /// Adds a figure.
    pub(crate) fn sample(&mut self, family: Family, label: &'static str, value: f64) {
        self.samples.push((family, label, value));
    }

    /// Of all labels of a family.
    pub(crate) fn sum(&self, of: Family) -> u64 {
        let samples = self.samples.iter().filter(|(family, ..)| *family == of);
        samples.map(|(_, _, value)| *value as u64).sum()
    }
}

/// The figures of all cores; `None` for one that does not answer.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) cores: Vec<(CoreId, Option<CoreSnapshot>)>,
    pub(crate) quorum: QuorumFigures,
    /// Most partitions, and most committed offsets, that have figures of their own.
    pub(crate) series_max: usize,
    pub(crate) process: Process,
    pub(crate) disk: Option<DiskSpace>,
    /// When the first certificate of each port ends, in seconds since 1970.
    pub(crate) certificates: Vec<(&'static str, i64)>,
    /// How many have said that they are brokers and did not know the cluster's secret, where there is one.
    pub(crate) proofs_refused: Option<u64>,
    /// How many attempts to fetch the keys of tokens have brought some, and how many have not, where there are tokens.
    pub(crate) key_fetches: Option<(u64, u64)>,
}

impl Gathered {
    #[cfg(test)]
    pub(crate) fn of(cores: Vec<(CoreId, Option<CoreSnapshot>)>, series_max: usize) -> Gathered {
        Gathered {
            cores,
            quorum: QuorumFigures::default(),
            series_max,
            process: Process::default(),
            disk: None,
            certificates: Vec::new(),
            proofs_refused: None,
            key_fetches: None,
        }
    }

    /// Cores that have not answered.
    pub(crate) fn silent(&self) -> Vec<u16> {
        let silent = self.cores.iter().filter(|(_, snapshot)| snapshot.is_none());
        silent.map(|(core, _)| core.get()).collect()
    }

    /// Partitions that cannot be used, of the cores that have answered.
    pub(crate) fn partitions_offline(&self) -> u64 {
        let samples = self.cores.iter().filter_map(|(_, snapshot)| snapshot.as_ref());
        let samples = samples.flat_map(|snapshot| &snapshot.samples);
        let offline = samples.filter(|(family, ..)| *family == Family::PartitionsOffline);
        offline.map(|(_, _, count)| *count as u64).sum()
    }
}
