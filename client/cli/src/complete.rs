//! What a shell completes: names that only a broker knows. Bounded in time, and silent: a shell that completes is no place for
//! errors.

use std::time::Duration;

use clap_complete::CompletionCandidate;
use headwater_client::{Admin, Client, Error};

use crate::args::SERVER;
use crate::tls::Tls;

/// With this in its environment the program prints completions, and does nothing else.
pub const VARIABLE: &str = "HEADWATER_COMPLETE";

/// Nobody waits longer for a completion.
const LIMIT: Duration = Duration::from_secs(1);

/// Names of topics.
pub fn topics() -> Vec<CompletionCandidate> {
    ask(async |admin| Ok(names(admin.topics().await?, |topic| topic.name.to_string())))
}

/// Ids of groups.
pub fn groups() -> Vec<CompletionCandidate> {
    ask(async |admin| Ok(names(admin.groups().list().await?, |group| group.group_id)))
}

/// Names of a topic's settings; a broker without a topic does not tell them.
pub fn settings() -> Vec<CompletionCandidate> {
    ask(async |admin| settings_of(&admin, "").await)
}

/// The same with the sign that a value follows.
pub fn settings_to_set() -> Vec<CompletionCandidate> {
    ask(async |admin| settings_of(&admin, "=").await)
}

/// Names of the broker's settings.
pub fn broker_settings() -> Vec<CompletionCandidate> {
    ask(async |admin| Ok(names(admin.describe_broker().await?.settings, |setting| setting.name)))
}

async fn settings_of(admin: &Admin, sign: &str) -> Result<Vec<String>, Error> {
    let topics = admin.topics().await?;
    let Some(topic) = topics.first() else {
        return Ok(Vec::new());
    };
    let described = admin.describe_topic(topic.name.as_str()).await?;
    Ok(names(described.configs, |config| config.name + sign))
}

fn names<T>(items: Vec<T>, name: impl Fn(T) -> String) -> Vec<String> {
    items.into_iter().map(name).collect()
}

/// What the broker answers in time, and nothing otherwise.
fn ask(question: impl AsyncFnOnce(Admin) -> Result<Vec<String>, Error>) -> Vec<CompletionCandidate> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let asked = async {
        let server = server(std::env::args()).or_else(|| std::env::var("HEADWATER_SERVER").ok());
        let client = Tls::of_environment()
            .tell(Client::builder())
            .bootstrap([server.unwrap_or_else(|| SERVER.to_owned())])
            .connect_timeout(LIMIT)
            .request_timeout(LIMIT)
            .call_timeout(LIMIT)
            .build()
            .await?;
        question(client.admin()).await
    };
    let answer = runtime.block_on(async { tokio::time::timeout(LIMIT, asked).await });
    // A name that is being resolved is not waited for.
    runtime.shutdown_background();
    let names = answer.map(Result::unwrap_or_default).unwrap_or_default();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// The server that the line names. Bash makes words of their own of `:` and `=`.
fn server(words: impl Iterator<Item = String>) -> Option<String> {
    let mut words = words.skip_while(|word| word != "--").peekable();
    while let Some(word) = words.next() {
        let mut server = match word.strip_prefix("--server=") {
            Some(server) => server.to_owned(),
            None if word == "--server" || word == "-s" => {
                words.next_if_eq("=");
                words.next()?
            }
            None => continue,
        };
        while let Some(colon) = words.next_if_eq(":") {
            server += &colon;
            server += &words.next().unwrap_or_default();
        }
        return Some(server);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_found_however_a_shell_has_cut_the_line() {
        for (line, expected) in [
            ("p -- headwater topic list", None),
            ("p -- headwater -s a:1 topic", Some("a:1")),
            ("p -- headwater topic --server a : 1 list", Some("a:1")),
            ("p -- headwater --server=a:1", Some("a:1")),
            ("p -- headwater --server = a : 1 topic", Some("a:1")),
            ("p -- headwater --server", None),
            ("p --server a:1 -- headwater", None),
        ] {
            let words = line.split(' ').map(str::to_owned);
            assert_eq!(server(words).as_deref(), expected, "{line}");
        }
    }
}
