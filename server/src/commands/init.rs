//! `headwater-server init`: a first configuration for this machine. What it chooses it sets, with the reason above it; every other key
//! stands there with its default, commented out.

use std::{
    cmp::Ordering,
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write as _},
    path::Path,
};

use crate::{
    check::{self, Machine, Report, Verdict},
    config::{ByteSize, Config, ConfigError, Effective, Source, comment},
};

const MIB: u64 = 1024 * 1024;

/// What is said at the top of what was found, by the names of the items of `check`.
const SHOWN: [&str; 9] = [
    "kernel",
    "open files",
    "cores",
    "CPU quota",
    "memory budgets",
    "data directory",
    "free space",
    "file system",
    "block device",
];

/// A budget of one core, as a share of memory.
struct Budget {
    key: &'static str,
    /// One of so many parts of the memory goes there, for all cores together.
    part: u64,
    words: &'static str,
    max: u64,
}

/// Together two fifths, so that more than half of the memory is left for the page cache and everything else.
const BUDGETS: [Budget; 4] = [
    Budget {
        key: "cores.tail_buffer_bytes_max",
        part: 5,
        words: "a fifth",
        max: 1024 * MIB,
    },
    Budget {
        key: "cores.cold_read_bytes_max",
        part: 10,
        words: "a tenth",
        max: 256 * MIB,
    },
    Budget {
        key: "cores.connection_bytes_max",
        part: 20,
        words: "a twentieth",
        max: 64 * MIB,
    },
    Budget {
        key: "cores.in_flight_bytes_max",
        part: 20,
        words: "a twentieth",
        max: 64 * MIB,
    },
];

/// A key that is set for this machine.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    key: &'static str,
    value: String,
    why: String,
}

/// The text of the file, for a broker that is told this much already: what somebody has set stays as it is. An error if that and what
/// this machine wants do not go together.
pub fn configuration(told: &Effective) -> Result<String, ConfigError> {
    let chosen = choose(told, &Machine::look(&told.config));
    let set = chosen.iter().map(|chosen| (chosen.key, chosen.value.as_str()));
    let config = told.config.clone().with(set)?;
    Ok(text(told, &chosen, &config, &Report::look(&config)))
}

/// Writes it; an error if the file is there already, unless it may be replaced.
pub fn write(path: &Path, text: &str, may_replace: bool) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true);
    if may_replace {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(path)?.write_all(text.as_bytes())
}

fn choose(told: &Effective, machine: &Machine) -> Vec<Chosen> {
    let mut chosen = Vec::new();
    let mut set = |key, value: String, why: String| {
        if told.sources.of(key) == Source::Default {
            chosen.push(Chosen { key, value, why });
        }
    };
    let config = &told.config;
    let cpus = machine.cpus.len();
    // What the control group lets run at a time.
    let allowed = machine
        .quota
        .map_or(cpus, |quota| (quota.floor() as usize).clamp(1, cpus));
    let cores = if config.cores.set.is_empty() && config.cores.count == 0 {
        let why = if allowed < cpus {
            format!("The control group lets this process use {allowed} of {cpus} CPUs at a time.")
        } else {
            "One for each CPU that this process may use; 0 counts them at each start.".to_owned()
        };
        set("cores.count", allowed.to_string(), why);
        allowed
    } else {
        check::cpus(&config.cores).len()
    };
    if allowed < cpus {
        let why = "CPUs that are used only a part of the time are shared with others.";
        set("cores.pin", "false".to_owned(), why.to_owned());
    }
    if let Some(memory) = machine.memory_bytes {
        for budget in &BUDGETS {
            let (value, why) = budget.of(memory, cores as u64, config);
            set(budget.key, value.to_string(), why);
        }
    }
    let directory = &config.log.directory;
    if let Ok(absolute) = std::path::absolute(directory) {
        let why = "Let it be on a disk that is meant for the data; wherever the broker is started, it is this one.";
        set("log.directory", absolute.display().to_string(), why.to_owned());
    }
    if let Some((value, why)) = machine.free_bytes.and_then(|free| smaller_segments(free, config)) {
        set("log.segment_size_bytes", value.to_string(), why);
    }
    let why = "Only this machine can look, such as `headwater-server ready` and a Prometheus beside the broker.";
    set("metrics.listen", "127.0.0.1:9644".to_owned(), why.to_owned());
    chosen
}

impl Budget {
    /// What one of so many cores gets, and why.
    fn of(&self, memory: u64, cores: u64, config: &Config) -> (ByteSize, String) {
        let step = 4 * MIB;
        let share = memory / self.part / cores.max(1) / step * step;
        let min = config.core_budget_min(self.key).next_multiple_of(step);
        let value = share.min(self.max).max(min);
        let (words, memory) = (self.words, check::rounded(memory));
        let value = ByteSize::new(value);
        let bound = match value.bytes().cmp(&share) {
            Ordering::Greater => format!(", but {value} at least, for the largest requests"),
            Ordering::Less => format!(", but {value} at most"),
            Ordering::Equal => String::new(),
        };
        let why = format!("For each core its part of {words} of the memory, {memory}{bound}.");
        (value, why)
    }
}

/// Segments that leave room for many on a small disk; none if those by default do.
fn smaller_segments(free: u64, config: &Config) -> Option<(ByteSize, String)> {
    /// So many should fit.
    const SEGMENTS: u64 = 32;
    let fits = free / SEGMENTS;
    let now = config.log.segment_size_bytes.bytes();
    if fits >= now {
        return None;
    }
    let power = fits.max(1).ilog2();
    let value = (1 << power).max(64 * MIB).max(config.log.batch_size_bytes_max.bytes());
    let free = check::rounded(free);
    let why = format!("Retention deletes whole segments, and {free} are free: smaller ones leave room for many.");
    (value < now).then(|| (ByteSize::new(value), why))
}

fn text(told: &Effective, chosen: &[Chosen], config: &Config, report: &Report) -> String {
    let mut out = String::new();
    head(&mut out, report);
    for (section, doc) in Config::SECTIONS {
        out.push('\n');
        comment(&mut out, doc);
        let _ = writeln!(out, "[{section}]");
        for knob in Config::KNOBS.iter().filter(|knob| knob.section == *section) {
            out.push('\n');
            comment(&mut out, knob.doc);
            let name = knob.name();
            let why = chosen
                .iter()
                .find(|chosen| chosen.key == name)
                .map(|chosen| chosen.why.clone());
            let source = told.sources.of(&name);
            let why = why.or_else(|| (source != Source::Default).then(|| format!("As given by {source}.")));
            let line = format!("{} = {}", knob.key, knob.value(config).toml());
            match why {
                Some(why) => {
                    comment(&mut out, &printable(&why));
                    let _ = writeln!(out, "{line}");
                }
                None => {
                    let _ = writeln!(out, "#{line}");
                }
            }
        }
    }
    out
}

fn head(out: &mut String, report: &Report) {
    comment(
        out,
        "Configuration of headwater-server, made by `headwater-server init` for the machine that it ran on. What is set here is set for a \
         reason that stands above it; everything else has its default, behind a #. `headwater-server --print-config` says which values are \
         allowed.",
    );
    let shown = report.items.iter().filter(|row| SHOWN.contains(&row.name));
    out.push_str("#\n# The machine, as `headwater-server check` saw it:\n");
    for row in shown {
        let _ = writeln!(out, "#   {:15} {}", row.name, printable(&row.finding.value));
    }
    let verdicts = [Verdict::ForbidsStart, Verdict::MustChange];
    let wrong = report
        .items
        .iter()
        .filter(|row| verdicts.contains(&row.finding.verdict));
    for row in wrong {
        let why = &row.finding.why;
        comment(out, &printable(&format!("MUST CHANGE, {}: {why}.", row.name)));
    }
}

/// A path may hold any character, but a comment ends with the line.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check::ITEMS, config::Layers};

    const GIB: u64 = 1024 * MIB;

    fn machine(cpus: u16, memory_bytes: u64, free_bytes: u64) -> Machine {
        Machine {
            cpus: (0..cpus).collect(),
            quota: None,
            memory_bytes: Some(memory_bytes),
            free_bytes: Some(free_bytes),
        }
    }

    fn told(flags: &[(&str, &str)]) -> Effective {
        let flags = flags
            .iter()
            .map(|(key, value)| ("--set".to_owned(), (*key).to_owned(), (*value).to_owned()));
        Layers {
            flags: flags.collect(),
            ..Layers::default()
        }
        .load()
        .unwrap()
    }

    /// The configuration that comes of what is chosen, which is valid.
    fn chosen_for(told: &Effective, machine: &Machine) -> Config {
        let chosen = choose(told, machine);
        let set = chosen.iter().map(|chosen| (chosen.key, chosen.value.as_str()));
        told.config.clone().with(set).unwrap()
    }

    #[test]
    fn what_is_chosen_is_valid_and_fits_in_half_of_the_memory_on_machines_of_every_size() {
        for (cpus, memory, free) in [
            (1, GIB, 2 * GIB),
            (2, 4 * GIB, 40 * GIB),
            (8, 16 * GIB, 500 * GIB),
            (16, 64 * GIB, 4096 * GIB),
            (128, 1024 * GIB, 1 << 50),
        ] {
            let config = chosen_for(&told(&[]), &machine(cpus, memory, free));
            let cores = &config.cores;
            assert_eq!(cores.count, cpus);
            let budgets = [
                cores.tail_buffer_bytes_max,
                cores.cold_read_bytes_max,
                cores.connection_bytes_max,
                cores.in_flight_bytes_max,
            ];
            let all = budgets.iter().map(|budget| budget.bytes()).sum::<u64>() * u64::from(cpus);
            assert!(all <= memory / 2, "{cpus} CPUs: {all} of {memory}");
            assert!(config.log.segment_size_bytes.bytes() * 3 <= free, "{free}");
            assert!(config.log.directory.is_absolute());
        }
        // Too small for its CPUs: it is still valid, and `check` says what is wrong.
        chosen_for(&told(&[]), &machine(64, GIB, 1));
    }

    #[test]
    fn what_somebody_has_set_stays_and_the_rest_goes_with_it() {
        let told = told(&[
            ("cores.set", "0-1"),
            ("cores.tail_buffer_bytes_max", "32MiB"),
            ("limits.frame_size_bytes_max", "16MiB"),
            ("metrics.listen", "off"),
        ]);
        let config = chosen_for(&told, &machine(4, 8 * GIB, 100 * GIB));
        assert_eq!((config.cores.count, config.cores.set.len()), (0, 2));
        assert_eq!(config.cores.tail_buffer_bytes_max.bytes(), 32 * MIB);
        assert_eq!(config.cores.connection_bytes_max.bytes(), 64 * MIB);
        assert!(config.metrics.listen.is_none());
    }

    #[test]
    fn a_control_group_with_little_time_gets_as_many_cores_as_it_can_run() {
        let machine = Machine {
            quota: Some(2.5),
            ..machine(8, 8 * GIB, 100 * GIB)
        };
        let config = chosen_for(&told(&[]), &machine);
        assert_eq!((config.cores.count, config.cores.pin), (2, false));
    }

    #[test]
    fn the_items_that_are_shown_are_there() {
        for name in SHOWN {
            assert!(ITEMS.iter().any(|item| item.name == name), "{name}");
        }
    }
}
