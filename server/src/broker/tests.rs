//! What becomes of a broker when one of its threads panics or hangs.

mod cluster;
mod near;
mod replicas;

use std::{
    env,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::process::ExitStatusExt as _,
    process::{Command, Output},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use tempfile::TempDir;

use super::*;
use crate::{failure, metrics::Family};

/// Longer than any of it takes; only what hangs comes to it.
const LIMIT: Duration = Duration::from_secs(30);

const CORES: u16 = 3;

/// The one that fails.
const CORE: CoreId = CoreId::new(1);

/// Which end a child process is to come to.
const END: &str = "HEADWATER_TEST_END";

fn start(directory: &Path) -> Broker {
    let mut config = Config::default();
    config.broker.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.cores.count = CORES;
    config.cores.pin = false;
    config.limits.shutdown_grace_ms = crate::config::Millis::new(100);
    config.limits.shutdown_close_ms_max = crate::config::Millis::new(2_000);
    directory.clone_into(&mut config.log.directory);
    Broker::start(config).unwrap()
}

/// Not where the system keeps temporary files: that may be in memory, which has no direct I/O.
fn directory() -> TempDir {
    let parent = env::current_exe().unwrap().parent().unwrap().to_owned();
    tempfile::tempdir_in(parent).unwrap()
}

/// Has a core do something.
fn run_on(broker: &Broker, core: CoreId, what: impl FnOnce() + Send + 'static) {
    broker.mesh.send(core, CoreMessage::Run(Box::new(what)));
}

/// Connections that the kernel spreads over all cores.
fn connect(broker: &Broker) -> Vec<TcpStream> {
    let connect = || -> io::Result<TcpStream> {
        let stream = TcpStream::connect(broker.addr())?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(stream)
    };
    (0..24).filter_map(|_| connect().ok()).collect()
}

/// What the kernel has accepted for a core that never looks stays open with the process: nothing may fail before all are taken in.
fn await_taken_in(broker: &Broker, connections: &[TcpStream]) {
    let open = |core| {
        let asked = broker.mesh.ask(CoreId::new(core), |reply| CoreMessage::Metrics {
            with_times: false,
            reply,
        });
        block_on(asked).unwrap().sum(Family::Connections)
    };
    let deadline = Instant::now() + LIMIT;
    while (0..CORES).map(open).sum::<u64>() < connections.len() as u64 {
        assert!(Instant::now() < deadline, "the broker does not take them in");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The other side has closed it, or it was never accepted.
fn assert_closed(mut stream: TcpStream) {
    // Anything may come of this, but no silence.
    let _ = stream.write_all(&[0; 4]);
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(count) => assert_eq!(count, 0, "an answer"),
        Err(error) => assert_ne!(
            error.kind(),
            io::ErrorKind::WouldBlock,
            "nothing comes, and it stays open"
        ),
    }
}

#[test]
fn when_a_core_panics_everybody_who_waits_gets_an_error_and_the_broker_says_why() {
    let directory = directory();
    let broker = start(directory.path());
    let connections = connect(&broker);
    assert!(!connections.is_empty() && broker.failure().is_none());
    await_taken_in(&broker, &connections);
    // Taken in by the core that fails, and never answered by it.
    let mesh = broker.mesh.clone();
    let (asked, is_asked) = mpsc::channel();
    let (answer, answered) = mpsc::channel();
    thread::spawn(move || {
        block_on(async {
            let asking = mesh.ask(CORE, |reply| {
                CoreMessage::Run(Box::new(move || {
                    std::mem::forget::<crate::core::mesh::Reply<()>>(reply);
                }))
            });
            asked.send(()).unwrap();
            answer.send(asking.await).unwrap();
        });
    });
    is_asked.recv().unwrap();
    run_on(&broker, CORE, || panic!("a bug"));
    assert_eq!(answered.recv_timeout(LIMIT), Ok(None), "whoever waits gets an error");
    assert_eq!(
        block_on(broker.mesh.ask(CORE, |reply| CoreMessage::Metrics {
            with_times: true,
            reply
        }))
        .map(drop),
        None
    );
    let failure = broker.failure().unwrap().to_string();
    assert_eq!(failure, "core-1 has failed: it has panicked: a bug");
    connections.into_iter().for_each(assert_closed);
    connect(&broker).into_iter().for_each(assert_closed);
    assert_eq!(broker.shutdown().unwrap_err().to_string(), failure);
    assert!(
        !directory.path().join(CLEAN_MARKER).exists(),
        "it has not stopped in order"
    );
    start(directory.path()).shutdown().unwrap();
}

#[test]
fn a_core_that_hangs_ends_a_shutdown_in_bounded_time_and_leaves_the_directory_locked() {
    let directory = directory();
    let broker = start(directory.path());
    let (release, released) = mpsc::channel::<()>();
    let (hang, hangs) = mpsc::channel();
    run_on(&broker, CORE, move || {
        hang.send(()).unwrap();
        let _ = released.recv();
    });
    hangs.recv().unwrap();
    let error = broker.shutdown().unwrap_err().to_string();
    assert!(error.starts_with("core-1 has not ended in the time"), "{error}");
    assert!(!directory.path().join(CLEAN_MARKER).exists());
    let mut config = Config::default();
    directory.path().clone_into(&mut config.log.directory);
    assert!(
        matches!(Broker::start(config), Err(StartError::Check(_))),
        "two brokers in one directory"
    );
    drop(release);
}

/// Runs this test's child in a process of its own, to this end.
fn child(end: &str) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "broker::tests::the_child_of_other_tests", "--nocapture"]);
    command.env(END, end).env("RUST_BACKTRACE", "1").output().unwrap()
}

#[test]
fn the_child_of_other_tests() {
    let Ok(end) = env::var(END) else { return };
    // No core dumps of tests.
    rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )
    .unwrap();
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let directory = directory();
    failure::end_process_on_panic(end == "abort");
    let broker = start(directory.path());
    match end.as_str() {
        "helper" => run_on(&broker, CORE, || {
            machine::spawn(machine::on_blocking_thread(|| panic!("a bug")));
        }),
        "control" => drop(
            thread::Builder::new()
                .name("control".to_owned())
                .spawn(|| panic!("a bug")),
        ),
        _ => run_on(&broker, CORE, || panic!("a bug")),
    }
    thread::sleep(LIMIT);
}

#[test]
fn a_panic_of_any_thread_ends_the_process_of_a_broker_with_a_message_and_a_code_of_its_own() {
    for (end, thread) in [("core", "core-1"), ("helper", "<unnamed>"), ("control", "control")] {
        let output = child(end);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(failure::EXIT_PANIC), "{end}: {said}");
        for part in [
            &format!("thread '{thread}'"),
            "panicked at",
            "a bug",
            "the broker ends at once",
            "stack backtrace",
        ] {
            assert!(said.contains(part), "{end}: no {part:?} in\n{said}");
        }
    }
}

#[test]
fn a_panic_ends_the_process_of_a_broker_by_abort_where_a_core_dump_is_wished() {
    let output = child("abort");
    let abort = rustix::process::Signal::ABORT.as_raw();
    assert_eq!(
        output.status.signal(),
        Some(abort),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn nobody_who_connects_while_a_broker_stops_is_left_waiting() {
    for _ in 0..5 {
        let directory = directory();
        let broker = start(directory.path());
        let address = broker.addr();
        let has_ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let connecting = [(); 4].map(|()| {
                scope.spawn(|| {
                    let mut streams = Vec::new();
                    while !has_ended.load(Ordering::Relaxed) {
                        streams.extend(TcpStream::connect(address).ok());
                        thread::sleep(Duration::from_micros(200));
                    }
                    streams
                })
            });
            thread::sleep(Duration::from_millis(20));
            broker.shutdown().unwrap();
            has_ended.store(true, Ordering::Relaxed);
            for stream in connecting.into_iter().flat_map(|thread| thread.join().unwrap()) {
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                assert_closed(stream);
            }
        });
    }
}
