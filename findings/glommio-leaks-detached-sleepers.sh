#!/usr/bin/env bash
# glommio, version 0.9.0 (crates.io): a detached task that sleeps when its executor ends is never dropped, nor is what it holds.
#
# Guess before the run: as with tokio, an executor that ends drops the futures that it still has, so their files are closed.
# Seen: a detached task that awaits a timer, or a channel whose sender it holds itself, outlives the executor and its joined thread:
# no destructor runs and its descriptor stays open in the process. The same task is dropped if it awaits nothing that keeps its waker
# (`pending()`), or if its handle is dropped instead of detached. tokio 1.47.1 drops it in every case.
# Who starts and ends executors inside a longer-lived process loses descriptors and memory each time.
#
# Needs cargo, Linux 5.8 or newer and io_uring. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
glommio = "=0.9.0"
futures = "=0.3.31"
tokio = { version = "=1.47.1", features = ["rt", "time"] }
[workspace]
TOML
cat >"$folder/src/main.rs" <<'RUST'
use std::{fs::File, future::{pending, Future}, os::fd::AsRawFd, path::Path, pin::Pin, time::Duration};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(20);

type Wait = Pin<Box<dyn Future<Output = ()>>>;

async fn holds(file: File, wait: Wait) {
    wait.await;
    drop(file);
}

async fn own_channel() {
    let (sender, receiver) = futures::channel::oneshot::channel::<()>();
    let _ = receiver.await;
    drop(sender);
}

fn is_open(descriptor: i32) -> bool {
    Path::new(&format!("/proc/self/fd/{descriptor}")).exists()
}

fn main() {
    let null = || File::open("/dev/null").expect("/dev/null opens");
    for way in ["nothing", "timer", "channel"] {
        for detached in [true, false] {
            let running = glommio::LocalExecutorBuilder::default().spawn(move || async move {
                let (file, wait): (_, Wait) = (null(), match way {
                    "timer" => Box::pin(glommio::timer::sleep(LONG)),
                    "channel" => Box::pin(own_channel()),
                    _ => Box::pin(pending()),
                });
                let descriptor = file.as_raw_fd();
                let task = glommio::spawn_local(holds(file, wait));
                glommio::timer::sleep(SHORT).await;
                if detached {
                    task.detach();
                }
                descriptor
            });
            let descriptor = running.expect("an executor starts").join().expect("an executor ends");
            println!("glommio, awaits {way}, detached {detached}: open {}", is_open(descriptor));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        let local = tokio::task::LocalSet::new();
        let descriptor = local.block_on(&runtime, async {
            let (file, wait): (_, Wait) = (null(), match way {
                "timer" => Box::pin(tokio::time::sleep(LONG)),
                "channel" => Box::pin(own_channel()),
                _ => Box::pin(pending()),
            });
            let descriptor = file.as_raw_fd();
            drop(tokio::task::spawn_local(holds(file, wait)));
            tokio::time::sleep(SHORT).await;
            descriptor
        });
        drop((local, runtime));
        println!("tokio, awaits {way}, detached true: open {}", is_open(descriptor));
    }
}
RUST
seen=$(cd "$folder" && cargo run --quiet)
expected='glommio, awaits nothing, detached true: open false
glommio, awaits nothing, detached false: open false
tokio, awaits nothing, detached true: open false
glommio, awaits timer, detached true: open true
glommio, awaits timer, detached false: open false
tokio, awaits timer, detached true: open false
glommio, awaits channel, detached true: open true
glommio, awaits channel, detached false: open false
tokio, awaits channel, detached true: open false'
printf '%s\n' "$seen"
if [[ "$seen" != "$expected" ]]; then
    printf 'The behaviour has changed; it was:\n%s\n' "$expected" >&2
    exit 1
fi
echo "As found: a detached task that sleeps outlives its executor, with all that it holds."
