//! Interrupts of the disks and network cards: on which CPUs they land, and who moves them.

use std::collections::BTreeSet;
use std::path::Path;

use super::cores::pinned;
use super::facts::{Facts, Interrupt, InterruptFacts};
use super::finding::Finding;
use super::root::storage::StorageFacts;
use super::root::{Root, shown};
use crate::config::Config;

impl InterruptFacts {
    pub(super) fn read(root: &Root, storage: &StorageFacts) -> Self {
        let cards = root
            .names("sys/class/net")
            .into_iter()
            .filter_map(|name| root.resolve(format!("sys/class/net/{name}/device")));
        let disks = storage
            .disks
            .iter()
            .filter_map(|disk| root.resolve(disk.path.join("device")));
        let numbers: BTreeSet<u32> = cards.chain(disks).flat_map(|device| vectors(root, &device)).collect();
        let counts = root.text("proc/interrupts").unwrap_or_default();
        let interrupt = |number: u32| {
            Some(Interrupt {
                number,
                count: count_of(&counts, number)?,
                cpus: root
                    .cpus(format!("proc/irq/{number}/effective_affinity_list"))
                    .filter(|cpus| !cpus.is_empty())
                    .or_else(|| root.cpus(format!("proc/irq/{number}/smp_affinity_list")))?,
            })
        };
        let processes = root
            .names("proc")
            .into_iter()
            .filter(|name| name.parse::<u32>().is_ok());
        Self {
            active: numbers
                .into_iter()
                .filter_map(interrupt)
                .filter(|irq| irq.count > 0)
                .collect(),
            online: root.cpus("sys/devices/system/cpu/online").unwrap_or_default(),
            irqbalance_runs: processes
                .filter_map(|process| root.text(format!("proc/{process}/comm")))
                .any(|name| name == "irqbalance"),
        }
    }
}

/// The interrupts of the PCI function that a device is part of.
fn vectors(root: &Root, device: &Path) -> Vec<u32> {
    let lists = device.ancestors().map(|above| root.names(above.join("msi_irqs")));
    let first = lists.into_iter().find(|list| !list.is_empty()).unwrap_or_default();
    first.iter().filter_map(|number| number.parse().ok()).collect()
}

/// How often an interrupt came: the sum over the columns of `/proc/interrupts`, of which there is one for each CPU.
fn count_of(interrupts: &str, number: u32) -> Option<u64> {
    let mut lines = interrupts.lines();
    let cpus = lines.next()?.split_whitespace().count();
    let wanted = format!("{number}:");
    let line = lines.find(|line| line.split_whitespace().next() == Some(&wanted))?;
    let counts = line.split_whitespace().skip(1).take(cpus);
    Some(counts.filter_map(|count| count.parse::<u64>().ok()).sum())
}

/// CPUs that no core is pinned to.
fn free(facts: &Facts, config: &Config) -> Vec<u16> {
    let pinned = pinned(facts, config);
    let online = facts.interrupts.online.iter().copied();
    online.filter(|cpu| !pinned.contains(cpu)).collect()
}

pub(super) fn spread(facts: &Facts, config: &Config) -> Finding {
    let recommended = "not all on the CPU of one core";
    let active = &facts.interrupts.active;
    let Some(busiest) = active.iter().max_by_key(|irq| irq.count) else {
        return Finding::unseen("none visible of the disk and the network", recommended);
    };
    let cpus: BTreeSet<u16> = active.iter().flat_map(|irq| irq.cpus.iter().copied()).collect();
    let cpus: Vec<u16> = cpus.into_iter().collect();
    let value = format!("{} of disk and network on CPU {}", active.len(), shown(&cpus));
    let finding = Finding::new(value, recommended);
    let free = free(facts, config);
    let [cpu] = cpus[..] else {
        return finding;
    };
    // With one core on one CPU, or one interrupt for as many cores as CPUs, there is nowhere to move it.
    let other = facts.interrupts.online.iter().copied().find(|online| *online != cpu);
    let (to, moved): (u16, Vec<String>) = match (free.first(), other) {
        _ if free.contains(&cpu) => return finding,
        (Some(free), _) => (*free, active.iter().map(|irq| irq.number.to_string()).collect()),
        (None, Some(other)) if active.len() > 1 => (other, vec![busiest.number.to_string()]),
        _ => return finding,
    };
    let command = match &moved[..] {
        [irq] => format!("echo {to} > /proc/irq/{irq}/smp_affinity_list"),
        irqs => format!(
            "for irq in {}; do echo {to} > /proc/irq/$irq/smp_affinity_list; done",
            irqs.join(" ")
        ),
    };
    finding
        .better(format!("CPU {cpu} serves every interrupt of the disk and the network besides its core, which falls behind the others"))
        .command(command)
        .advice("leave them where the kernel refuses that (queues that the driver manages)")
}

pub(super) fn irqbalance(facts: &Facts, config: &Config) -> Finding {
    let recommended = "not running, or kept off the CPUs of the cores";
    if !facts.interrupts.irqbalance_runs {
        return Finding::new("not running", recommended);
    }
    let finding = Finding::new("running", recommended);
    let pinned = pinned(facts, config);
    if pinned.is_empty() || free(facts, config).is_empty() {
        // Wherever it puts them, there is a core.
        return finding;
    }
    finding
        .better("It moves interrupts onto the CPUs of the cores, and back from where they were put by hand")
        .command("systemctl disable --now irqbalance")
        .advice(format!(
            "keep it off these CPUs with IRQBALANCE_BANNED_CPULIST={} in its environment",
            shown(&pinned)
        ))
}
