//! What failover has shown: a table for people, and the sections of the page in which the gap can be seen.

use comfy_table::Table;
use maud::{Markup, html};

use super::kill::{Failover, Kill, SHOWN_BEFORE};
use crate::report::chart::{Axis, Line, Scale};
use crate::report::html::charts::{TIME, bar, chart};
use crate::report::table::{add, microseconds, new, three};
use crate::report::text::Text;

/// Records a second.
const RECORDS: Axis = Axis {
    scale: Scale::Linear,
    show: |rate| format!("{rate:.0}/s"),
    tell: |rate| format!("{} records/s", three(rate)),
};

/// So many kills are drawn over each other; more of them show nothing.
const DRAWN_MAX: usize = 8;

fn millis(ms: f64) -> String {
    microseconds(ms * 1e3)
}

fn victim(kill: &Kill) -> String {
    let role = if kill.was_coordinator == Some(true) {
        ", coordinator"
    } else {
        ""
    };
    format!("broker {}{role}", kill.broker)
}

/// A line for each kill, and what they come to.
pub fn table(text: &mut Text, failover: &Failover) {
    text.table(kills(failover));
    text.gap();
    if let Some(silent) = failover.silent_ms {
        text.line(
            "silent",
            &format!(
                "after the death of a leader nothing was acknowledged of its partitions for {} in the median, {} at worst",
                millis(silent.median),
                millis(silent.worst)
            ),
        );
    }
}

fn kills(failover: &Failover) -> Table {
    let header = [
        "killed",
        "at",
        "led",
        "silent",
        "all silent",
        "in sync",
        "lost",
        "duplicated",
        "reordered",
    ];
    let mut table = new(header);
    for kill in &failover.kills {
        let row = [
            victim(kill),
            format!("{:.1} s", kill.at_s),
            kill.partitions_led.to_string(),
            millis(kill.silent_ms),
            millis(kill.all_silent_ms),
            millis(kill.back_in_sync_ms),
            kill.toll.lost.to_string(),
            kill.toll.duplicated.to_string(),
            kill.toll.reordered.to_string(),
        ];
        add(&mut table, row);
    }
    table
}

/// The gap of each kill as a bar, and what was acknowledged around the longest of them.
pub fn section(failover: &Failover) -> Markup {
    let most = failover.kills.iter().map(|kill| kill.silent_ms).fold(1e-9, f64::max);
    let mut drawn: Vec<(usize, &Kill)> = failover.kills.iter().enumerate().collect();
    drawn.sort_by(|(_, a), (_, b)| b.silent_ms.total_cmp(&a.silent_ms));
    drawn.truncate(DRAWN_MAX);
    let lines: Vec<Line> = drawn
        .iter()
        .map(|(number, kill)| Line {
            name: format!("kill {} ({})", number + 1, victim(kill)),
            look: if kill.was_coordinator == Some(true) {
                "group"
            } else {
                "produce"
            }
            .to_owned(),
            points: kill.rates.clone(),
        })
        .collect();
    let before = SHOWN_BEFORE.as_secs();
    let caption = format!(
        "Records acknowledged of the partitions that a broker led, in moments of 20 ms. It was killed {before} s from the left."
    );
    html! {
        section {
            h2 { "Nothing was acknowledged" }
            p.caption { "After each kill, of the partition that waited longest; and what became of records." }
            @for (number, kill) in failover.kills.iter().enumerate() {
                @let toll = &kill.toll;
                @let name = format!("{}. {}", number + 1, victim(kill));
                @let value = format!("{} ({} lost, {} duplicated, {} reordered)", millis(kill.silent_ms), toll.lost, toll.duplicated, toll.reordered);
                @let explained = format!("It led {} of the partitions; nothing at all was acknowledged for {}; it was in sync again {} after its start.",
                    kill.partitions_led, millis(kill.all_silent_ms), millis(kill.back_in_sync_ms));
                (bar(&name, &value, kill.silent_ms / most, "produce", &explained))
            }
        }
        (chart("The gap", &caption, &lines, TIME, RECORDS, &html! {}))
    }
}
