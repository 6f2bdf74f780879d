//! Which CPUs the cores run on, by configuration and by what the process may use.

use super::facts::Facts;
use super::finding::Finding;
use super::root::{counted, shown};
use crate::config::{Config, CoresSection};

/// The CPUs to run on, one executor each: as configured, else the first `count` (or all) of those allowed.
pub(super) fn chosen(cores: &CoresSection, allowed: &[u16]) -> Vec<u16> {
    if !cores.set.is_empty() {
        return cores.set.iter().collect();
    }
    // More executors than CPUs is possible when they are not pinned; they share CPUs in turn.
    allowed
        .iter()
        .copied()
        .cycle()
        .take(core_count(cores, allowed))
        .collect()
}

/// How many cores the broker runs on.
pub(super) fn core_count(cores: &CoresSection, allowed: &[u16]) -> usize {
    match (cores.set.len(), usize::from(cores.count)) {
        (0, 0) => allowed.len(),
        (0, count) | (count, _) => count,
    }
}

/// The CPUs that executors are pinned to, in rising order; none if they are not pinned.
pub(super) fn pinned(facts: &Facts, config: &Config) -> Vec<u16> {
    let mut cpus = chosen(&config.cores, &facts.asked.cpus);
    cpus.retain(|_| config.cores.pin);
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

pub(super) fn cores(facts: &Facts, config: &Config) -> Finding {
    let cores = &config.cores;
    let allowed = &facts.asked.cpus;
    let count = core_count(cores, allowed);
    let value = format!(
        "{}, {}; CPU {} allowed",
        counted(count as u64, "core"),
        if cores.pin { "pinned" } else { "not pinned" },
        shown(allowed)
    );
    let recommended = "one on each CPU, pinned";
    let finding = Finding::new(value, recommended);
    let outside: Vec<u16> = cores.set.iter().filter(|cpu| !allowed.contains(cpu)).collect();
    if cores.pin && !outside.is_empty() {
        finding
            .forbids(format!(
                "cores.set names CPU {}, which this process may not use",
                shown(&outside)
            ))
            .advice(format!("choose from {}", shown(allowed)))
    } else if cores.pin && count > allowed.len() {
        finding
            .forbids(format!(
                "cores.count is {count}, but this process may use only the {} CPUs {}",
                allowed.len(),
                shown(allowed)
            ))
            .advice("lower it, or set cores.pin = false")
    } else if count > allowed.len() {
        finding
            .better("Cores share CPUs and wait for one another")
            .advice(format!("set cores.count = {}", allowed.len()))
    } else if !cores.pin {
        finding
            .better("The kernel moves cores between CPUs, away from their caches")
            .advice("set cores.pin = true, unless other programs need these CPUs")
    } else {
        finding
    }
}

pub(super) fn core_ports(facts: &Facts, config: &Config) -> Finding {
    let base = config.broker.core_port_base;
    let count = core_count(&config.cores, &facts.asked.cpus);
    let recommended = "one free port for each core";
    let value = match usize::from(base) {
        0 => "any free ones".to_owned(),
        first => format!("{first} to {}", first + count - 1),
    };
    let finding = Finding::new(value, recommended);
    match config.core_ports_rule(count) {
        Some(rule) => finding.forbids(format!("broker.core_port_base is {base}")).advice(rule),
        None => finding,
    }
}

pub(super) fn quota(facts: &Facts, config: &Config) -> Finding {
    let count = core_count(&config.cores, &facts.asked.cpus);
    let recommended = format!("none, or {} or more", counted(count as u64, "CPU"));
    let Some(cpus) = facts.cpu.quota.filter(|cpus| cpus.is_finite()) else {
        return Finding::new("none", recommended);
    };
    let finding = Finding::new(format!("{cpus:.1} CPUs"), recommended);
    if cpus >= count as f64 {
        return finding;
    }
    finding
        .better(format!(
            "The control group lets {count} cores use only {cpus:.1} CPUs and stops them for milliseconds once that is spent"
        ))
        .advice(format!(
            "raise cpu.max of the container (docker: --cpus {count}), or set cores.count = {}",
            (cpus.floor() as u64).max(1)
        ))
}

pub(super) fn numa(facts: &Facts, config: &Config) -> Finding {
    let nodes = &facts.cpu.nodes;
    let recommended = "the cores of a broker on one node";
    if nodes.is_empty() {
        return Finding::unseen("not visible", recommended);
    }
    let cpus = chosen(&config.cores, &facts.asked.cpus);
    let on = nodes.iter().filter(|node| node.iter().any(|cpu| cpus.contains(cpu)));
    let used = on.count();
    let finding = Finding::new(
        format!("{}, {used} used", counted(nodes.len() as u64, "node")),
        recommended,
    );
    match nodes.iter().max_by_key(|node| node.len()) {
        Some(largest) if used > 1 => finding
            .better("What crosses from one core to another may cross sockets, which costs twice as much or more")
            .advice(format!(
                "set cores.set = \"{}\" (a node; best that of the disk and the network card), with one broker for each node",
                shown(largest)
            )),
        _ => finding,
    }
}

pub(super) fn smt(facts: &Facts, config: &Config) -> Finding {
    let recommended = "one core for each physical core";
    let siblings = &facts.cpu.siblings;
    if siblings.is_empty() {
        return Finding::unseen("not visible", recommended);
    }
    let cpus = pinned(facts, config);
    let pair = siblings
        .iter()
        .find(|group| group.iter().filter(|cpu| cpus.contains(cpu)).count() > 1);
    let Some(pair) = pair else {
        let value = if siblings.iter().any(|group| group.len() > 1) {
            "on, siblings not both pinned to"
        } else {
            "off"
        };
        return Finding::new(value, recommended);
    };
    let mut firsts: Vec<u16> = siblings.iter().filter_map(|group| group.first().copied()).collect();
    firsts.retain(|cpu| cpus.contains(cpu));
    Finding::new(
        format!("on, cores on both threads of a pair such as {}", shown(pair)),
        recommended,
    )
    .better("Two cores that share a physical one slow each other down by turns, which shows in the latency")
    .advice(format!(
        "set cores.set = \"{}\" where even latency matters more than the last of the throughput",
        shown(&firsts)
    ))
}
