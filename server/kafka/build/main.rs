//! Makes Rust of Kafka's message definitions (`messages/*.json`), in three files of `OUT_DIR`:
//!
//! ```text
//! messages/*.json -> schema: as they are written -> types: what a field is in Rust, at which versions
//!                 -> emit: a struct for each, how it is read and written     -> messages.rs
//!                 -> apis: the table of requests                             -> apis.rs
//!                 -> cases: random values, and a list of all, for the tests  -> cases.rs
//! ```

mod apis;
mod cases;
mod emit;
mod schema;
mod types;

use std::path::{Path, PathBuf};
use std::{env, fs};

use schema::Definition;

fn main() {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=messages");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where generated files go"));
    let definitions = definitions(Path::new("messages"));
    let write = |name: &str, text: String| {
        let path = out.join(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    };
    write("messages.rs", emit::messages(&definitions));
    write("apis.rs", apis::table(&definitions));
    write("cases.rs", cases::cases(&definitions));
}

/// All definitions, by name, so that the same files make the same code.
fn definitions(folder: &Path) -> Vec<Definition> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("the folder of definitions can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    paths.iter().map(|path| Definition::read(path)).collect()
}
