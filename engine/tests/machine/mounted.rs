//! A file system on a loop device of its own, which only the thread that asked for it and its children see. It goes with them,
//! however they end.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
};

/// Large enough for ext4 with a journal.
const SIZE_MIB: u64 = 128;

/// Runs `test` in the root of a new file system, made by `mkfs.ext4` with these arguments; or says why it cannot.
pub fn on_a_new_file_system(name: &str, arguments: &[&str], test: impl FnOnce(&Path) + Send) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // A mount namespace is a thread's own.
    let outcome = thread::scope(|scope| {
        let running =
            scope.spawn(|| mount(directory.path(), arguments).map(|()| test(&directory.path().join("mounted"))));
        running.join()
    });
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => skip(name, &reason),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn skip(name: &str, reason: &str) {
    let is_required = std::env::var("HEADWATER_REQUIRE_ROOT_TESTS").is_ok_and(|value| value == "1");
    assert!(!is_required, "{name} has to run here, and cannot: {reason}");
    eprintln!("skipped: {name}: {reason}");
}

fn mount(directory: &Path, arguments: &[&str]) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root may mount a file system".to_owned());
    }
    // SAFETY: it takes no pointers, and only this thread's view of mounts changes.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(format!(
            "no mount namespace can be made: {}",
            io::Error::last_os_error()
        ));
    }
    let (image, mounted) = (directory.join("image"), directory.join("mounted"));
    let size = std::fs::File::create(&image).and_then(|file| file.set_len(SIZE_MIB << 20));
    size.and_then(|()| std::fs::create_dir(&mounted))
        .map_err(|error| error.to_string())?;
    run(Command::new("mount").args(["--make-rprivate", "/"]))?;
    // Nothing is left to be written later, beside the test.
    let mkfs = ["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    run(Command::new("mkfs.ext4").args(mkfs).args(arguments).arg(&image))?;
    run(Command::new("mount")
        .args(["-o", "loop,commit=300"])
        .args([&image, &mounted]))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// How often the device below a file system has been told to flush its cache: the 16th number of
/// `Documentation/block/stat.rst`.
pub fn flushes(directory: &Path) -> u64 {
    let device = std::fs::metadata(directory).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let statistics = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap();
    statistics.split_whitespace().nth(15).unwrap().parse().unwrap()
}
