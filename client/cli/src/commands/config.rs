//! `headwater config`: the settings in force.

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use serde_json::{Map, Value, json};

use super::topic::{setting_rows, settings_json};
use crate::complete;
use crate::failure::Failure;
use crate::screen::Rows;
use crate::session::Session;

pub const EXAMPLES: &str = "\
Examples:
  headwater config                                           # every setting of the broker that answers
  headwater config log.retention                             # those whose name has this in it
  headwater config topic orders                              # every setting of a topic

`headwater topic alter orders --set retention.ms=1h` changes a setting of a topic. A broker's settings come from its \
file, environment and flags when it starts: `headwater-server --print-config` explains each.";

const TOPIC_EXAMPLES: &str = "\
Examples:
  headwater config topic orders
  headwater config topic orders --output json                # in ms and bytes";

/// Options of `config`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ConfigArgs {
    /// Only settings whose name has this in it
    #[arg(value_name = "PART", add = ArgValueCandidates::new(complete::broker_settings))]
    part: Option<String>,
    #[command(subcommand)]
    of: Option<Of>,
}

/// Whose settings.
#[derive(Debug, Subcommand)]
enum Of {
    /// Show the settings of a topic: its own and the broker's defaults
    #[command(after_help = TOPIC_EXAMPLES)]
    Topic {
        /// The topic
        #[arg(add = ArgValueCandidates::new(complete::topics))]
        name: String,
    },
}

/// Does what was asked for.
pub async fn run(session: &Session, args: ConfigArgs) -> Result<(), Failure> {
    if let Some(Of::Topic { name }) = &args.of {
        let topic = session.topic(name).await?;
        let (settings, own) = settings_json(&topic);
        return session.screen.show(
            || json!({"topic": name, "settings": settings, "own_settings": own}),
            || setting_rows(&topic.configs).text(),
        );
    }
    let broker = session.admin.describe_broker().await;
    let broker = broker.map_err(|error| Failure::client("ask for the broker's settings", &error))?;
    let part = args.part.unwrap_or_default();
    let settings = broker
        .settings
        .into_iter()
        .filter(|setting| setting.name.contains(&part));
    let settings: Vec<_> = settings.map(|setting| (setting.name, setting.value)).collect();
    if settings.is_empty() {
        return Err(
            Failure::not_found(format!("no setting of the broker has {part:?} in its name"))
                .hint("`headwater config` shows all; `headwater config topic NAME` those of a topic"),
        );
    }
    let whose = [("broker", json!(broker.id.get())), ("version", json!(broker.version))];
    show(session, &whose, &settings)
}

fn show(session: &Session, whose: &[(&str, Value)], settings: &[(String, Option<String>)]) -> Result<(), Failure> {
    session.screen.show(
        || {
            let settings = settings.iter().map(|(name, value)| (name.clone(), json!(value)));
            let mut fields: Map<_, _> = whose
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect();
            fields.insert("settings".to_owned(), Value::Object(settings.collect()));
            Value::Object(fields)
        },
        || {
            let mut rows = Rows::new(["SETTING", "VALUE"]);
            for (name, value) in settings {
                rows.add([name.clone(), value.clone().unwrap_or_else(|| "(secret)".to_owned())]);
            }
            rows.text()
        },
    )
}
