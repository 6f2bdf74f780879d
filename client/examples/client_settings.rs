//! Prints the reference of the client's settings as Markdown.
//!
//! `cargo run -p headwater-client --example client_settings > docs/client-settings.md`

fn main() {
    print!("{}", headwater_client::settings_reference());
}
