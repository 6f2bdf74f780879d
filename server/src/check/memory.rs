//! Memory: is there enough, in large pages, and does it stay in memory.

use super::cores::core_count;
use super::facts::{Facts, MemoryFacts};
use super::finding::Finding;
use super::root::{Root, cgroup, counted, rounded};
use crate::config::{ByteSize, Config};

/// Virtual devices by which a host takes memory back.
const BALLOONS: &str = "sys/bus/virtio/drivers/virtio_balloon";

/// Of a balloon's features.
const REPORTING_BIT: usize = 5;

/// Above this the kernel swaps out what was not used for a while although there is memory to be had from the page cache.
const SWAPPINESS_MAX: u32 = 10;

const HUGE_PAGES: &str = "sys/kernel/mm/transparent_hugepage";

impl MemoryFacts {
    pub(super) fn read(root: &Root) -> Self {
        let swaps = root.text("proc/swaps").unwrap_or_default();
        Self {
            bytes: machine_bytes(root).into_iter().chain(cgroup::memory_max(root)).min(),
            huge_pages: root.chosen(format!("{HUGE_PAGES}/enabled")),
            defrag: root.chosen(format!("{HUGE_PAGES}/defrag")),
            swaps: swaps.lines().skip(1).count(),
            swappiness: root.number("proc/sys/vm/swappiness"),
            reporting: reporting(root),
        }
    }
}

/// Balloons that have agreed on `VIRTIO_BALLOON_F_REPORTING` with the host (virtio 1.2, 5.5.3). A device's file `features`
/// has a digit for each bit, the lowest first.
fn reporting(root: &Root) -> Vec<String> {
    let mut devices = root.names(BALLOONS);
    devices.retain(|device| {
        let features = root.text(format!("{BALLOONS}/{device}/features"));
        features.is_some_and(|bits| bits.as_bytes().get(REPORTING_BIT) == Some(&b'1'))
    });
    devices
}

fn machine_bytes(root: &Root) -> Option<u64> {
    let text = root.text("proc/meminfo")?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

pub(super) fn budgets(facts: &Facts, config: &Config) -> Finding {
    let cores = &config.cores;
    let core_count = core_count(cores, &facts.asked.cpus);
    let per_core = [
        cores.tail_buffer_bytes_max,
        cores.cold_read_bytes_max,
        cores.connection_bytes_max,
        cores.in_flight_bytes_max,
    ];
    let budgets = per_core
        .iter()
        .map(|size| size.bytes())
        .sum::<u64>()
        .saturating_mul(core_count as u64);
    let recommended = "less than half, as the page cache serves consumers";
    let Some(memory) = facts.memory.bytes else {
        return Finding::unseen(format!("{} of unknown memory", rounded(budgets)), recommended);
    };
    let finding = Finding::new(format!("{} of {}", rounded(budgets), rounded(memory)), recommended);
    let records = [cores.tail_buffer_bytes_max, cores.cold_read_bytes_max].map(ByteSize::bytes);
    let records = records.iter().sum::<u64>().saturating_mul(core_count as u64);
    if cores.prefault && memory < records {
        return finding
            .forbids(format!(
                "cores.prefault would map {} for records at the start, more than the {} of memory",
                rounded(records),
                rounded(memory)
            ))
            .advice("lower cores.tail_buffer_bytes_max or cores.cold_read_bytes_max");
    }
    let knobs = "lower cores.tail_buffer_bytes_max or the other budgets of [cores]";
    let budgets_of = format!(
        "The budgets of {} add up to {}",
        counted(core_count as u64, "core"),
        rounded(budgets)
    );
    if memory < budgets {
        finding
            .must(format!("{budgets_of}, more than the {} of memory", rounded(memory)))
            .advice(knobs)
    } else if memory / 2 < budgets {
        finding
            .better(format!("{budgets_of} and leave less than that for the page cache"))
            .advice(knobs)
    } else {
        finding
    }
}

pub(super) fn huge_pages(facts: &Facts, _: &Config) -> Finding {
    let recommended = "madvise or always";
    match facts.memory.huge_pages.as_deref() {
        None => Finding::unseen("not visible", recommended),
        Some(value @ ("madvise" | "always")) => Finding::new(value, recommended),
        Some(value) => Finding::new(value, recommended)
            .better("Tail buffers lie in small pages, and a direct write of 512 KiB must name 128 of them")
            .command(format!("echo madvise > /{HUGE_PAGES}/enabled")),
    }
}

pub(super) fn defrag(facts: &Facts, _: &Config) -> Finding {
    let recommended = "madvise or defer+madvise";
    match facts.memory.defrag.as_deref() {
        None => Finding::unseen("not visible", recommended),
        Some(value @ ("madvise" | "defer+madvise" | "always")) => Finding::new(value, recommended),
        Some(value) => Finding::new(value, recommended)
            .better("Once memory is fragmented, new tail buffers get small pages")
            .command(format!("echo madvise > /{HUGE_PAGES}/defrag")),
    }
}

pub(super) fn swap(facts: &Facts, _: &Config) -> Finding {
    let recommended = format!("off, or vm.swappiness of {SWAPPINESS_MAX} or less");
    let swaps = facts.memory.swaps as u64;
    if swaps == 0 {
        return Finding::new("off", recommended);
    }
    let swappiness = facts.memory.swappiness.unwrap_or(60);
    let finding = Finding::new(
        format!("{}, vm.swappiness {swappiness}", counted(swaps, "area")),
        recommended,
    );
    if swappiness <= SWAPPINESS_MAX {
        return finding;
    }
    finding
        .better("A core that touches memory which was swapped out stands still until the disk has brought it back")
        .command("sysctl -w vm.swappiness=1")
}

pub(super) fn free_page_reporting(facts: &Facts, _: &Config) -> Finding {
    let recommended = "off";
    let Some(device) = facts.memory.reporting.first() else {
        return Finding::new("off", recommended);
    };
    Finding::new("on", recommended)
        .better(
            "The host takes back free memory, and the first touch of each page of it afterwards waits for the host: \
             what is read through the page cache comes from such pages",
        )
        .command(format!("echo {device} > /{BALLOONS}/unbind"))
}
