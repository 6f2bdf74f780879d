//! Completions and manual pages, made of the command line itself.

use std::{fs, io, path::Path};

use clap::Command;
pub use clap_complete::Shell;

/// A script that has a shell complete the command's flags.
pub fn completions(mut command: Command, shell: Shell) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// Writes a page for the command and for each below it, into a directory that is made if it is missing. Returns their names.
pub fn man(command: Command, directory: &Path) -> io::Result<Vec<String>> {
    let name = command.get_name().to_owned();
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(command, directory)?;
    let mut pages = Vec::new();
    for entry in fs::read_dir(directory)? {
        pages.extend(entry?.file_name().into_string().ok());
    }
    pages.retain(|page| page.starts_with(&name) && page.ends_with(".1"));
    pages.sort_unstable();
    Ok(pages)
}
