//! `headwater user`: who has a password.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use headwater_client::{ErrorCode, User};
use serde_json::{Value, json};

use super::confirm;
use crate::failure::Failure;
use crate::screen::{Rows, note};
use crate::session::Session;
use crate::values;

const ADD_EXAMPLES: &str = "\
Examples:
  headwater user add alice --new-password-file alice.secret
  openssl rand -base64 24 | tee alice.secret | headwater user add alice

The password is the first line of that file, or of standard input. It is salted and hashed here and never sent: brokers keep what proves \
it. A user may do nothing yet where security.authorizer is on: `headwater acl add` allows it.";

const PASSWORD_EXAMPLES: &str = "\
Examples:
  headwater user password alice --new-password-file alice.secret

Connections that are open stay open, until security.reauthenticate_ms is over.";

const LIST_EXAMPLES: &str = "\
Examples:
  headwater user list
  headwater user list --output json";

const REMOVE_EXAMPLES: &str = "\
Examples:
  headwater user remove alice
  headwater user remove alice --yes                          # without asking

Its connections are closed with their next request. Rules about it stay: `headwater acl remove --principal alice` removes them.";

/// What to do with users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Make a user, with a password
    #[command(after_help = ADD_EXAMPLES)]
    Add(SetArgs),
    /// Give a user another password
    #[command(after_help = PASSWORD_EXAMPLES)]
    Password(SetArgs),
    /// List all users
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List,
    /// Take a user's passwords away
    #[command(visible_alias = "rm", after_help = REMOVE_EXAMPLES)]
    Remove(RemoveArgs),
}

/// Options of `user add` and `user password`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Its name
    name: String,
    /// Read its password from this file instead of standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    new_password_file: Option<PathBuf>,
    /// How often the password is hashed: the more, the longer each guess takes, and each connection
    #[arg(long, value_name = "COUNT", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(4096..=1_000_000))]
    iterations: u32,
}

/// Options of `user remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Its name
    name: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Does what was asked for.
pub async fn run(session: &Session, command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add(args) => {
            if users(session).await?.iter().any(|user| user.name == args.name) {
                let message = format!("there is a user {} already", args.name);
                return Err(Failure::usage(message)
                    .hint(format!("`headwater user password {}` changes its password", args.name)));
            }
            set(session, args, "made").await
        }
        UserCommand::Password(args) => {
            if !users(session).await?.iter().any(|user| user.name == args.name) {
                return Err(unknown(&args.name));
            }
            set(session, args, "given another password").await
        }
        UserCommand::List => list(session).await,
        UserCommand::Remove(args) => remove(session, &args).await,
    }
}

fn unknown(name: &str) -> Failure {
    Failure::not_found(format!("there is no user {name}")).hint("`headwater user list` lists all users")
}

async fn users(session: &Session) -> Result<Vec<User>, Failure> {
    let users = session.admin.users().await;
    users.map_err(|error| Failure::client("list users", &error))
}

/// The first line of a file, or of standard input.
fn password(args: &SetArgs) -> Result<String, Failure> {
    let (text, place) = if let Some(path) = &args.new_password_file {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path);
        (
            text.map_err(|error| Failure::failed(format!("cannot read {place}: {error}")))?,
            place,
        )
    } else {
        if std::io::stdin().is_terminal() {
            let message = "the password is read from standard input, and that is a terminal, which would show it";
            return Err(Failure::usage(message).hint("--new-password-file names a file that has it"));
        }
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        read.map_err(|error| Failure::failed(format!("cannot read the password: {error}")))?;
        (text, "standard input".to_owned())
    };
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Failure::failed(format!(
            "the first line of {place} is empty; the password should be there"
        )));
    }
    Ok(line.to_owned())
}

async fn set(session: &Session, args: SetArgs, done: &str) -> Result<(), Failure> {
    let password = password(&args)?;
    let set = session
        .admin
        .set_user(&args.name, &password, Some(args.iterations))
        .await;
    set.map_err(|error| Failure::client(&format!("set the password of user {}", args.name), &error))?;
    session.screen.show(
        || json!({"name": args.name, "iterations": args.iterations}),
        || format!("user {} was {done}\n", args.name),
    )
}

async fn list(session: &Session) -> Result<(), Failure> {
    let users = users(session).await?;
    if users.is_empty() && !session.screen.is_json() {
        note("there are no users; `headwater user add NAME` makes one");
    }
    session.screen.show(
        || users.iter().map(user_json).collect(),
        || {
            if users.is_empty() {
                return String::new();
            }
            let mut rows = Rows::new(["USER", "MECHANISMS"]);
            for user in &users {
                let mechanism = |(name, iterations): &(&str, u32)| {
                    format!("{name} ({})", values::count(u64::from(*iterations), "iteration"))
                };
                let mechanisms: Vec<String> = user.mechanisms.iter().map(mechanism).collect();
                rows.add([user.name.clone(), mechanisms.join(", ")]);
            }
            rows.text()
        },
    )
}

fn user_json(user: &User) -> Value {
    let mechanism = |(name, iterations): &(&str, u32)| json!({"mechanism": name, "iterations": iterations});
    let mechanisms: Vec<Value> = user.mechanisms.iter().map(mechanism).collect();
    json!({"name": user.name, "mechanisms": mechanisms})
}

async fn remove(session: &Session, args: &RemoveArgs) -> Result<(), Failure> {
    confirm(&format!("Remove the user {}?", args.name), args.yes)?;
    match session.admin.remove_user(&args.name).await {
        Ok(()) => session.screen.show(
            || json!({"name": args.name}),
            || format!("user {} was removed\n", args.name),
        ),
        Err(error) if error.code() == Some(ErrorCode::ResourceNotFound) => Err(unknown(&args.name)),
        Err(error) => Err(Failure::client(&format!("remove user {}", args.name), &error)),
    }
}
