//! The clock: every record, deadline and histogram reads it, so that a slow one costs on the whole path.

use super::facts::{ClockFacts, Facts};
use super::finding::Finding;
use super::root::Root;
use crate::config::Config;

const DIRECTORY: &str = "sys/devices/system/clocksource/clocksource0";

/// Clock sources that the kernel lets programs read by themselves (vDSO), the best first.
const FAST: [&str; 5] = [
    "tsc",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
    "arch_sys_counter",
    "riscv_clocksource",
];

impl ClockFacts {
    pub(super) fn read(root: &Root) -> Self {
        let available = root.text(format!("{DIRECTORY}/available_clocksource"));
        Self {
            current: root.text(format!("{DIRECTORY}/current_clocksource")),
            available: available
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
        }
    }
}

pub(super) fn source(facts: &Facts, _: &Config) -> Finding {
    let recommended = "tsc, or kvm-clock in a virtual machine";
    let Some(current) = &facts.clock.current else {
        return Finding::unseen("not visible", recommended);
    };
    let finding = Finding::new(current, recommended);
    if FAST.contains(&current.as_str()) {
        return finding;
    }
    let finding =
        finding.better("To read the clock takes a system call and slow hardware, several times for each request");
    match FAST
        .iter()
        .find(|fast| facts.clock.available.iter().any(|name| name == *fast))
    {
        Some(fast) => finding.command(format!("echo {fast} > /{DIRECTORY}/current_clocksource")),
        None => {
            finding.advice("boot with tsc=reliable if the kernel's log says that it distrusts a clock which is sound")
        }
    }
}

pub(super) fn reading(facts: &Facts, _: &Config) -> Finding {
    let (clock, call) = (facts.asked.clock_ns, facts.asked.system_call_ns);
    let finding = Finding::new(
        format!("{clock} ns; a system call takes {call} ns"),
        "less than a system call",
    );
    if clock < call {
        return finding;
    }
    finding
        .better("The clock is not read by the process itself (vDSO), but by a system call")
        .advice(
            "mend the clock source above; if that is good, a sandbox (gVisor, ptrace) stands between: run without it",
        )
}
