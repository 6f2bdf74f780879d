//! `headwater offsets`: where partitions begin and end, and where a moment is in them.

use clap::Args;
use clap_complete::ArgValueCandidates;
use headwater_client::{OffsetSpec, Timestamp};
use serde_json::json;

use crate::complete;
use crate::failure::Failure;
use crate::screen::Rows;
use crate::session::{Ends, Session};
use crate::{json, values};

pub const EXAMPLES: &str = "\
Examples:
  headwater offsets orders                                   # first and next offset of every partition
  headwater offsets orders --at '10m ago'                    # and the first record of the last ten minutes
  headwater offsets orders --at '2026-01-31 12:00' --partition 0
  headwater offsets orders --at 2026-01-31T12:00:00Z --output json";

/// Options of `offsets`.
#[derive(Debug, Args)]
pub struct OffsetsArgs {
    /// The topic
    #[arg(add = ArgValueCandidates::new(complete::topics))]
    topic: String,
    /// Also look up the first record at or after this moment: '10m ago', 2026-01-31, '2026-01-31 12:00' (local time),
    /// 2026-01-31T12:00:00Z, or milliseconds since 1970
    #[arg(short, long, value_name = "TIME", value_parser = values::moment)]
    at: Option<Timestamp>,
    /// Only this partition; several times for several
    #[arg(short, long = "partition", value_name = "NUMBER")]
    partitions: Vec<i32>,
}

/// Does what was asked for.
pub async fn run(session: &Session, args: OffsetsArgs) -> Result<(), Failure> {
    let topic = session.topic(&args.topic).await?;
    let ends = session.ends(&topic, &args.partitions).await?;
    let partitions: Vec<_> = ends.iter().map(|ends| ends.partition).collect();
    let at = match args.at {
        Some(moment) => {
            let spec = OffsetSpec::Timestamp(moment);
            Some(session.offsets(topic.name.as_str(), &partitions, spec).await?)
        }
        None => None,
    };
    let found = |index: usize| at.as_ref().and_then(|offsets| offsets.get(index).copied().flatten());
    session.screen.show(
        || {
            let partition = |(index, ends): (usize, &Ends)| {
                let mut value = json!({"partition": ends.partition.get(), "start": ends.start, "end": ends.end});
                if let (Some(_), Some(fields)) = (&at, value.as_object_mut()) {
                    fields.insert("at".to_owned(), json!(found(index)));
                }
                value
            };
            let partitions: Vec<_> = ends.iter().enumerate().map(partition).collect();
            json!({"topic": topic.name.as_str(), "at": args.at.map(json::moment), "partitions": partitions})
        },
        || {
            let Some(moment) = args.at else {
                let mut rows = Rows::new([">PARTITION", ">START", ">END", ">RECORDS"]);
                for ends in &ends {
                    let records = ends.end - ends.start;
                    rows.add([
                        ends.partition.to_string(),
                        ends.start.to_string(),
                        ends.end.to_string(),
                        records.to_string(),
                    ]);
                }
                return rows.text();
            };
            let title = format!(">AT {}", values::rfc3339(moment));
            let mut rows = Rows::new([">PARTITION", ">START", &title, ">END"]);
            for (index, ends) in ends.iter().enumerate() {
                let at = found(index).map_or_else(|| "none as late".to_owned(), |offset| offset.to_string());
                rows.add([
                    ends.partition.to_string(),
                    ends.start.to_string(),
                    at,
                    ends.end.to_string(),
                ]);
            }
            rows.text()
        },
    )
}
