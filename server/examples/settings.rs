//! Prints the reference of the broker's configuration as Markdown.
//!
//! `cargo run -p headwater-server --example settings > docs/settings.md`

fn main() {
    print!("{}", headwater_server::config::reference());
}
