//! `headwater acl`: who may do what.

use clap::{ArgGroup, Args, Subcommand};
use headwater_client::{Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource};
use serde_json::{Value, json};

use super::confirm;
use crate::failure::Failure;
use crate::screen::{Rows, note};
use crate::session::Session;
use crate::values;

const ADD_EXAMPLES: &str = "\
Examples:
  headwater acl add --principal alice --topic orders --operation write
  headwater acl add --principal billing --topic orders- --prefix --operation read
  headwater acl add --principal billing --group billing --operation read
  headwater acl add --principal '*' --host 10.0.0.0/8 --topic public --operation read
  headwater acl add --principal mallory --topic '*' --operation all --deny
  headwater acl add --principal ops --cluster --operation alter --operation describe

Who may read, write, delete or alter something may describe it. Without a rule that allows it nothing is allowed, and a rule that denies \
wins. A consumer needs read on its topics and on its group; an idempotent producer needs write on a topic.";

const LIST_EXAMPLES: &str = "\
Examples:
  headwater acl list
  headwater acl list --principal alice
  headwater acl list --topic orders --output json";

const REMOVE_EXAMPLES: &str = "\
Examples:
  headwater acl remove --principal alice --topic orders
  headwater acl remove --principal alice --yes               # all rules about alice, without asking";

/// What to do with rules.
#[derive(Debug, Subcommand)]
pub enum AclCommand {
    /// Allow or deny something
    #[command(after_help = ADD_EXAMPLES)]
    Add(Box<AddArgs>),
    /// List rules
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(Box<FilterArgs>),
    /// Remove rules
    #[command(visible_alias = "rm", after_help = REMOVE_EXAMPLES)]
    Remove(Box<RemoveArgs>),
}

/// What a rule is about.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("resource").args(["topic", "group", "cluster", "transactional_id"]))]
pub struct ResourceArgs {
    /// A topic; * is all of them
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// A consumer group; * is all of them
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// The cluster as a whole
    #[arg(long)]
    cluster: bool,
    /// A transactional id; * is all of them
    #[arg(long, value_name = "ID")]
    transactional_id: Option<String>,
    /// All whose names begin so
    #[arg(long)]
    prefix: bool,
}

/// Options of `acl add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Who: a user, or * for everybody
    #[arg(long, required = true, value_name = "USER")]
    principal: Vec<String>,
    #[command(flatten)]
    resource: ResourceArgs,
    /// What for, such as read, write, create, delete, alter, describe or all; several times for several
    #[arg(long, required = true, value_name = "OPERATION", value_parser = operation)]
    operation: Vec<AclOperation>,
    /// From where: an address, a range such as 10.0.0.0/8, or *
    #[arg(long, default_value = "*", value_name = "ADDRESS")]
    host: String,
    /// It is denied
    #[arg(long)]
    deny: bool,
}

/// Which rules are meant.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// About whom
    #[arg(long, value_name = "USER")]
    principal: Option<String>,
    #[command(flatten)]
    resource: ResourceArgs,
    /// What for
    #[arg(long, value_name = "OPERATION", value_parser = operation)]
    operation: Option<AclOperation>,
    /// From where
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
}

/// Options of `acl remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

fn operation(text: &str) -> Result<AclOperation, String> {
    AclOperation::named(&text.to_ascii_lowercase()).ok_or_else(|| {
        let names: Vec<&str> = AclOperation::ALL.iter().map(|known| known.name()).collect();
        format!("it is one of {}", names.join(", "))
    })
}

/// `alice` is `User:alice`.
fn principal(name: &str) -> String {
    if name.contains(':') {
        name.to_owned()
    } else {
        format!("User:{name}")
    }
}

impl ResourceArgs {
    fn named(&self) -> Option<(AclResource, String)> {
        let named = [
            (AclResource::Topic, &self.topic),
            (AclResource::Group, &self.group),
            (AclResource::TransactionalId, &self.transactional_id),
        ];
        let cluster = self.cluster.then(|| (AclResource::Cluster, "kafka-cluster".to_owned()));
        let mut named = named.into_iter().filter_map(|(kind, name)| Some((kind, name.clone()?)));
        named.next().or(cluster)
    }

    fn pattern(&self) -> AclPattern {
        if self.prefix {
            AclPattern::Prefixed
        } else {
            AclPattern::Literal
        }
    }
}

impl FilterArgs {
    fn filter(&self) -> AclFilter {
        let (resource, name) = self.resource.named().unzip();
        AclFilter {
            resource,
            pattern: self.resource.prefix.then_some(AclPattern::Prefixed),
            name,
            principal: self.principal.as_deref().map(principal),
            host: self.host.clone(),
            operation: self.operation,
            permission: None,
        }
    }
}

/// Does what was asked for.
pub async fn run(session: &Session, command: AclCommand) -> Result<(), Failure> {
    match command {
        AclCommand::Add(args) => add(session, &args).await,
        AclCommand::List(args) => list(session, &args).await,
        AclCommand::Remove(args) => remove(session, &args).await,
    }
}

async fn add(session: &Session, args: &AddArgs) -> Result<(), Failure> {
    let Some((resource, name)) = args.resource.named() else {
        return Err(Failure::usage("it does not say what the rule is about")
            .hint("--topic, --group, --transactional-id or --cluster says it"));
    };
    let permission = if args.deny {
        AclPermission::Deny
    } else {
        AclPermission::Allow
    };
    let mut acls = Vec::new();
    for who in &args.principal {
        for operation in &args.operation {
            acls.push(Acl {
                resource,
                pattern: args.resource.pattern(),
                name: name.clone(),
                principal: principal(who),
                host: args.host.clone(),
                operation: *operation,
                permission,
            });
        }
    }
    let added = session.admin.create_acls(&acls).await;
    added.map_err(|error| Failure::client("add rules", &error))?;
    session.screen.show(
        || acls.iter().map(acl_json).collect(),
        || acls.iter().flat_map(|acl| [sentence(acl), "\n".to_owned()]).collect(),
    )
}

fn sentence(acl: &Acl) -> String {
    let may = match acl.permission {
        AclPermission::Deny => "may not",
        _ => "may",
    };
    let from = if acl.host == "*" {
        String::new()
    } else {
        format!(" from {}", acl.host)
    };
    let (principal, operation, resource) = (&acl.principal, acl.operation.name(), acl.resource.name());
    match (acl.resource, acl.pattern) {
        (AclResource::Cluster, _) => format!("{principal} {may} {operation} the cluster{from}"),
        (_, AclPattern::Prefixed) => format!(
            "{principal} {may} {operation} each {resource} that begins with {}{from}",
            acl.name
        ),
        _ => format!("{principal} {may} {operation} the {resource} {}{from}", acl.name),
    }
}

async fn list(session: &Session, args: &FilterArgs) -> Result<(), Failure> {
    let acls = session.admin.acls(&args.filter()).await;
    let acls = acls.map_err(|error| Failure::client("list rules", &error))?;
    if acls.is_empty() && !session.screen.is_json() {
        note("there are no such rules; `headwater acl add` makes some");
    }
    show(session, &acls)
}

fn show(session: &Session, acls: &[Acl]) -> Result<(), Failure> {
    session.screen.show(
        || acls.iter().map(acl_json).collect(),
        || {
            if acls.is_empty() {
                return String::new();
            }
            let mut rows = Rows::new([
                "PRINCIPAL",
                "HOST",
                "PERMISSION",
                "OPERATION",
                "RESOURCE",
                "NAME",
                "PATTERN",
            ]);
            for acl in acls {
                rows.add([
                    acl.principal.clone(),
                    acl.host.clone(),
                    acl.permission.name().to_owned(),
                    acl.operation.name().to_owned(),
                    acl.resource.name().to_owned(),
                    acl.name.clone(),
                    acl.pattern.name().to_owned(),
                ]);
            }
            rows.text()
        },
    )
}

fn acl_json(acl: &Acl) -> Value {
    json!({
        "principal": acl.principal,
        "host": acl.host,
        "permission": acl.permission.name(),
        "operation": acl.operation.name(),
        "resource": acl.resource.name(),
        "name": acl.name,
        "pattern": acl.pattern.name(),
    })
}

async fn remove(session: &Session, args: &RemoveArgs) -> Result<(), Failure> {
    let filter = args.filter.filter();
    if filter == AclFilter::default() {
        return Err(Failure::usage("it does not say which rules").hint("--principal, --topic and the like say it"));
    }
    let meant = session.admin.acls(&filter).await;
    let meant = meant.map_err(|error| Failure::client("list rules", &error))?;
    if meant.is_empty() {
        return Err(Failure::not_found("there are no such rules").hint("`headwater acl list` lists all rules"));
    }
    let count = values::count(meant.len() as u64, "rule");
    for acl in &meant {
        note(&sentence(acl));
    }
    confirm(&format!("Remove {count}?"), args.yes)?;
    let removed = session.admin.delete_acls(&filter).await;
    let removed = removed.map_err(|error| Failure::client("remove rules", &error))?;
    show(session, &removed)
}
