//! `--watch`: a result again and again.

use std::time::Duration;

use clap::Args;

use crate::failure::Failure;
use crate::screen::{Screen, note};
use crate::session::Session;
use crate::values;

/// How a result is watched.
#[derive(Debug, Clone, Copy, Args)]
pub struct WatchArgs {
    /// Show it again every 2 seconds, or as often as is said, until Ctrl-C: in place on a terminal, one after the other in a pipe
    #[arg(
        short,
        long,
        value_name = "TIME",
        num_args = 0..=1,
        default_missing_value = "2s",
        value_parser = values::duration
    )]
    watch: Option<Duration>,
}

/// Shows a result once, or again and again. A broker that is away for a while does not end it.
pub async fn run(
    session: &Session,
    args: WatchArgs,
    show: impl AsyncFn(Screen) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(interval) = args.watch else {
        return show(session.screen).await;
    };
    let screen = session.screen.repeating(interval);
    let watched = async {
        // What is wrong from the beginning stays wrong.
        show(screen).await?;
        loop {
            tokio::time::sleep(interval).await;
            match show(screen).await {
                Err(failure) if failure.is_connection() => note(&format!("{}; going on", failure.message())),
                shown => shown?,
            }
        }
    };
    tokio::select! {
        ended = watched => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}
