//! `headwater quota`: how much somebody may use of each broker.

use clap::{Args, Subcommand};
use headwater_client::{Quota, QuotaEntity, QuotaKey, QuotaName};
use serde_json::{Value, json};

use super::confirm;
use crate::failure::Failure;
use crate::screen::{Rows, note};
use crate::session::Session;
use crate::values;

const SET_EXAMPLES: &str = "\
Examples:
  headwater quota set --user alice producer_byte_rate=1MiB consumer_byte_rate=4MiB
  headwater quota set --user alice --client-id nightly producer_byte_rate=100KiB
  headwater quota set --user-default request_percentage=50
  headwater quota set --client-id-default consumer_byte_rate=10MiB
  headwater quota set --ip 10.1.2.3 connection_creation_rate=5

Bytes and connections are counted for each second and broker, over all its cores; request_percentage is time of a core. Of several quotas \
the first of these counts that there is: of the user with the client id, of the user, of the client id; a default comes behind what is \
set for one by name. Whoever is over its quota is not read from for a while.";

const LIST_EXAMPLES: &str = "\
Examples:
  headwater quota list
  headwater quota list --user alice
  headwater quota list --output json";

const REMOVE_EXAMPLES: &str = "\
Examples:
  headwater quota remove --user alice producer_byte_rate
  headwater quota remove --user alice --client-id nightly --yes     # all of it, without asking";

/// What to do with quotas.
#[derive(Debug, Subcommand)]
pub enum QuotaCommand {
    /// Set quotas
    #[command(after_help = SET_EXAMPLES)]
    Set(SetArgs),
    /// List quotas
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(EntityArgs),
    /// Remove quotas
    #[command(visible_alias = "rm", after_help = REMOVE_EXAMPLES)]
    Remove(RemoveArgs),
}

/// Whose quotas.
#[derive(Debug, Args)]
pub struct EntityArgs {
    /// Of this user
    #[arg(long, value_name = "NAME", conflicts_with = "ip")]
    user: Option<String>,
    /// Of each user that has none of its own
    #[arg(long, conflicts_with_all = ["user", "ip", "ip_default"])]
    user_default: bool,
    /// Of clients that call themselves so
    #[arg(long, value_name = "ID", conflicts_with = "ip")]
    client_id: Option<String>,
    /// Of each client id that has none of its own
    #[arg(long, conflicts_with_all = ["client_id", "ip", "ip_default"])]
    client_id_default: bool,
    /// Of this address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Of each address that has none of its own
    #[arg(long, conflicts_with_all = ["user", "client_id", "ip"])]
    ip_default: bool,
}

/// Options of `quota set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    #[command(flatten)]
    entity: EntityArgs,
    /// What, and how much of it
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = setting)]
    values: Vec<(QuotaKey, f64)>,
}

/// Options of `quota remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    entity: EntityArgs,
    /// Which; all of them otherwise
    #[arg(value_name = "KEY", value_parser = key)]
    keys: Vec<QuotaKey>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

fn key(text: &str) -> Result<QuotaKey, String> {
    QuotaKey::named(text).ok_or_else(|| {
        let names: Vec<&str> = QuotaKey::ALL.iter().map(|known| known.name()).collect();
        format!("it is one of {}", names.join(", "))
    })
}

fn setting(text: &str) -> Result<(QuotaKey, f64), String> {
    let (name, value) = text.split_once('=').ok_or("it is written as KEY=VALUE")?;
    let key = key(name)?;
    if matches!(key, QuotaKey::ProducerByteRate | QuotaKey::ConsumerByteRate)
        && let Some(bytes) = bytes(value)
    {
        return Ok((key, bytes as f64));
    }
    let number = value.parse().map_err(|_wrong| format!("{value} is no number"))?;
    Ok((key, number))
}

/// `1MiB` and the like.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|sign: char| !sign.is_ascii_digit())?;
    let unit: u64 = match &text[end..] {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    text[..end].parse::<u64>().ok()?.checked_mul(unit)
}

impl EntityArgs {
    fn entity(&self) -> QuotaEntity {
        let part = |name: &Option<String>, default: bool| {
            let named = name.clone().map(QuotaName::Is);
            named.or_else(|| default.then_some(QuotaName::Default))
        };
        QuotaEntity {
            user: part(&self.user, self.user_default),
            client_id: part(&self.client_id, self.client_id_default),
            ip: part(&self.ip, self.ip_default),
        }
    }

    /// One that somebody can be.
    fn named(&self) -> Result<QuotaEntity, Failure> {
        let entity = self.entity();
        if entity == QuotaEntity::default() {
            return Err(Failure::usage("it does not say whose quotas")
                .hint("--user, --client-id, --ip or one of their defaults says it"));
        }
        Ok(entity)
    }
}

/// Does what was asked for.
pub async fn run(session: &Session, command: QuotaCommand) -> Result<(), Failure> {
    match command {
        QuotaCommand::Set(args) => set(session, &args).await,
        QuotaCommand::List(args) => list(session, &args).await,
        QuotaCommand::Remove(args) => remove(session, &args).await,
    }
}

async fn set(session: &Session, args: &SetArgs) -> Result<(), Failure> {
    let entity = args.entity.named()?;
    let values: Vec<_> = args.values.iter().map(|(key, value)| (*key, Some(*value))).collect();
    let set = session.admin.alter_quotas(&entity, &values).await;
    set.map_err(|error| Failure::client(&format!("set the quotas of {}", sentence(&entity)), &error))?;
    let values = args.values.clone();
    show(session, &[Quota { entity, values }])
}

/// As a person says it.
fn sentence(entity: &QuotaEntity) -> String {
    let part = |what: &str, name: &Option<QuotaName>| match name {
        None => None,
        Some(QuotaName::Default) => Some(format!("each {what}")),
        Some(QuotaName::Is(name)) => Some(format!("{what} {name}")),
    };
    let parts = [
        part("user", &entity.user),
        part("client id", &entity.client_id),
        part("address", &entity.ip),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" with ")
}

async fn quotas(session: &Session) -> Result<Vec<Quota>, Failure> {
    let quotas = session.admin.quotas().await;
    quotas.map_err(|error| Failure::client("list quotas", &error))
}

/// Whether an entity has all parts that are asked for.
fn is_meant(entity: &QuotaEntity, asked: &QuotaEntity) -> bool {
    let has = |part: &Option<QuotaName>, asked: &Option<QuotaName>| asked.is_none() || part == asked;
    has(&entity.user, &asked.user) && has(&entity.client_id, &asked.client_id) && has(&entity.ip, &asked.ip)
}

async fn list(session: &Session, args: &EntityArgs) -> Result<(), Failure> {
    let asked = args.entity();
    let mut quotas = quotas(session).await?;
    quotas.retain(|quota| is_meant(&quota.entity, &asked));
    if quotas.is_empty() && !session.screen.is_json() {
        note("there are no such quotas; `headwater quota set` sets some");
    }
    show(session, &quotas)
}

fn show(session: &Session, quotas: &[Quota]) -> Result<(), Failure> {
    session.screen.show(
        || quotas.iter().map(quota_json).collect(),
        || {
            if quotas.is_empty() {
                return String::new();
            }
            let mut rows = Rows::new(["WHOSE", "QUOTA", "VALUE"]);
            for quota in quotas {
                for (key, value) in &quota.values {
                    rows.add([sentence(&quota.entity), key.name().to_owned(), value.to_string()]);
                }
            }
            rows.text()
        },
    )
}

fn quota_json(quota: &Quota) -> Value {
    let part = |name: &Option<QuotaName>| match name {
        None => Value::Null,
        Some(QuotaName::Default) => json!({"default": true}),
        Some(QuotaName::Is(name)) => json!({"name": name}),
    };
    let values = quota.values.iter();
    let values: serde_json::Map<String, Value> = values
        .map(|(key, value)| (key.name().to_owned(), json!(value)))
        .collect();
    json!({
        "user": part(&quota.entity.user),
        "client_id": part(&quota.entity.client_id),
        "ip": part(&quota.entity.ip),
        "values": values,
    })
}

async fn remove(session: &Session, args: &RemoveArgs) -> Result<(), Failure> {
    let entity = args.entity.named()?;
    let whose = sentence(&entity);
    let there = quotas(session).await?.into_iter().find(|quota| quota.entity == entity);
    let mut keys: Vec<QuotaKey> = there
        .iter()
        .flat_map(|quota| quota.values.iter().map(|(key, _)| *key))
        .collect();
    keys.retain(|key| args.keys.is_empty() || args.keys.contains(key));
    if keys.is_empty() {
        return Err(Failure::not_found(format!("there are no such quotas of {whose}"))
            .hint("`headwater quota list` lists all quotas"));
    }
    let count = values::count(keys.len() as u64, "quota");
    confirm(&format!("Remove {count} of {whose}?"), args.yes)?;
    let values: Vec<_> = keys.iter().map(|key| (*key, None)).collect();
    let removed = session.admin.alter_quotas(&entity, &values).await;
    removed.map_err(|error| Failure::client(&format!("remove the quotas of {whose}"), &error))?;
    session.screen.show(
        || keys.iter().map(|key| json!(key.name())).collect(),
        || format!("{count} of {whose} removed\n"),
    )
}
