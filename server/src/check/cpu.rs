//! What is known of the CPUs, and how fast they run and wake up.

use super::cores::chosen;
use super::facts::{CpuFacts, Facts, IdleState};
use super::finding::Finding;
use super::root::{Root, cgroup, numbered};
use crate::config::Config;

/// An idle CPU that wakes up more slowly than this adds a good part of the time of a small durable write (50 to 100 us).
const WAKE_US_MAX: u64 = 10;

const CPUS: &str = "sys/devices/system/cpu";

impl CpuFacts {
    pub(super) fn read(root: &Root) -> Self {
        let names = root.names(CPUS);
        let mut cpus: Vec<u16> = names.iter().filter_map(|name| numbered(name, "cpu")).collect();
        cpus.sort_unstable();
        let governor = |cpu: &u16| Some((*cpu, root.text(format!("{CPUS}/cpu{cpu}/cpufreq/scaling_governor"))?));
        let sibling = |cpu: &u16| root.cpus(format!("{CPUS}/cpu{cpu}/topology/thread_siblings_list"));
        let mut siblings: Vec<Vec<u16>> = cpus.iter().filter_map(sibling).collect();
        siblings.sort();
        siblings.dedup();
        let nodes = root.names("sys/devices/system/node");
        let nodes = nodes.iter().filter(|name| numbered(name, "node").is_some());
        Self {
            governors: cpus.iter().filter_map(governor).collect(),
            idle_states: idle_states_of(root, cpus.first().copied().unwrap_or_default()),
            idle_governor: root.text(format!("{CPUS}/cpuidle/current_governor")),
            siblings,
            nodes: nodes
                .filter_map(|node| root.cpus(format!("sys/devices/system/node/{node}/cpulist")))
                .filter(|cpus| !cpus.is_empty())
                .collect(),
            quota: cgroup::cpu_quota(root),
        }
    }
}

fn idle_states_of(root: &Root, cpu: u16) -> Vec<IdleState> {
    // Ten or more states there are not, so that the order of names is that of numbers.
    let directory = format!("{CPUS}/cpu{cpu}/cpuidle");
    let names = root.names(&directory).into_iter();
    let state = |name: String| {
        Some(IdleState {
            wake_us: root.number(format!("{directory}/{name}/latency"))?,
            is_disabled: root.number::<u8>(format!("{directory}/{name}/disable")) == Some(1),
            name: root.text(format!("{directory}/{name}/name"))?,
        })
    };
    names.filter_map(state).collect()
}

pub(super) fn governor(facts: &Facts, config: &Config) -> Finding {
    let recommended = "performance";
    let cpus = chosen(&config.cores, &facts.asked.cpus);
    let governors = facts.cpu.governors.iter().filter(|(cpu, _)| cpus.contains(cpu));
    let mut found: Vec<&str> = governors.map(|(_, governor)| governor.as_str()).collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        return Finding::unseen("none here (in a virtual machine the host decides)", recommended);
    }
    let finding = Finding::new(found.join(", "), recommended);
    if found == [recommended] {
        return finding;
    }
    finding
        .better("CPUs that were idle run slowly for the first milliseconds of a load")
        .command("echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")
}

pub(super) fn idle_states(facts: &Facts, config: &Config) -> Finding {
    let spin_us = config.cores.spin_before_park_us.get();
    let recommended = format!("a wake-up within {WAKE_US_MAX} us");
    let states = &facts.cpu.idle_states;
    let Some((number, deepest)) = states.iter().enumerate().rfind(|(_, state)| !state.is_disabled) else {
        return Finding::unseen("none here (in a virtual machine the host decides)", recommended);
    };
    let governor = facts.cpu.idle_governor.as_deref().unwrap_or("no governor");
    let finding = Finding::new(
        format!("{}, {} us, {governor}", deepest.name, deepest.wake_us),
        recommended,
    );
    if deepest.wake_us <= WAKE_US_MAX || spin_us >= deepest.wake_us {
        return finding;
    }
    // The states are in the order of their depth.
    let slow = states
        .iter()
        .position(|state| state.wake_us > WAKE_US_MAX)
        .unwrap_or(number);
    let which = if slow == number {
        format!("state{number}")
    } else {
        format!("state[{slow}-{number}]")
    };
    finding
        .better(format!(
            "A request that finds its core asleep waits up to {} us for the CPU to wake up",
            deepest.wake_us
        ))
        .command(format!(
            "echo 1 | tee /sys/devices/system/cpu/cpu*/cpuidle/{which}/disable"
        ))
        .advice(format!(
            "set cores.spin_before_park_us = {}, where latency matters more than power",
            deepest.wake_us
        ))
}
