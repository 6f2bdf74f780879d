//! Short runs of every measurement, on a real disk: the figures are plausible, and what was not asked for is absent.

use super::figures::Percentiles;
use super::*;

pub(super) fn config() -> Config {
    Config {
        file_bytes: 32 << 20,
        time: Duration::from_millis(30),
        ..Config::new(directory())
    }
}

/// On the disk that the tests are built on.
pub(super) fn directory() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.parent().unwrap().to_owned()
}

fn run(part: Part) -> Limits {
    measure(&Selection::of(&[part]), &config(), &mut |_title| {}).unwrap()
}

/// Between 100 kB/s and 1 TB/s.
fn assert_rate(rate: Option<f64>) {
    let rate = rate.unwrap();
    assert!((1e5..1e12).contains(&rate), "{rate} bytes/s");
}

fn assert_times(times: Option<Percentiles>) {
    let times = times.unwrap();
    assert!(times.samples > 0);
    assert!(times.p50 > 0.1, "{times:?}");
    assert!(
        times.p50 <= times.p90 && times.p90 <= times.p99 && times.p99 <= times.p999,
        "{times:?}"
    );
    assert!(times.p999 <= times.max * 1.01, "{times:?}");
}

#[test]
fn the_disk_has_rates_and_small_durable_writes_take_time() {
    let disk = run(Part::Disk).disk;
    for rate in [
        disk.write_bytes_per_s,
        disk.write_128_kib_bytes_per_s,
        disk.write_1_mib_bytes_per_s,
        disk.read_bytes_per_s,
        disk.read_128_kib_bytes_per_s,
        disk.read_1_mib_bytes_per_s,
    ] {
        assert_rate(rate);
    }
    let disk = run(Part::Flush).disk;
    assert_times(disk.write_flush_us);
    assert_times(disk.write_dsync_us);
}

#[test]
fn loopback_has_rates_and_a_round_trip() {
    assert_rate(run(Part::Loopback).network.loopback_bytes_per_s);
    assert_rate(run(Part::Sendfile).network.sendfile_bytes_per_s);
    assert_times(run(Part::RoundTrip).network.round_trip_us);
}

#[test]
fn what_was_not_selected_is_absent_also_in_json_which_reads_back() {
    let limits = run(Part::Loopback);
    let json = serde_json::to_value(&limits).unwrap();
    let names: Vec<_> = json.as_object().unwrap().keys().collect();
    assert_eq!(names, ["loopback_bytes_per_s"]);
    assert_eq!(serde_json::from_value::<Limits>(json).unwrap(), limits);
}

#[test]
fn a_file_that_does_not_fit_is_refused_before_anything_is_written() {
    let config = Config {
        file_bytes: 1 << 60,
        ..config()
    };
    let error = measure(&Selection::of(&[Part::Disk]), &config, &mut |_title| {}).unwrap_err();
    assert!(matches!(error, LimitsError::NoRoom { .. }), "{error}");
    assert!(error.to_string().contains("--file-size"));
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let config = Config {
        data_dir: PathBuf::from("/nowhere/at/all"),
        ..config()
    };
    let error = measure(&Selection::of(&[Part::Disk]), &config, &mut |_title| {}).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

#[test]
fn memory_has_rates() {
    let memory = run(Part::Memory).memory;
    for rate in [
        memory.memcpy_bytes_per_s,
        memory.memcpy_aliased_bytes_per_s,
        memory.memcpy_cold_bytes_per_s,
        memory.memcpy_fresh_bytes_per_s,
        memory.crc_bytes_per_s,
    ] {
        assert_rate(rate);
    }
}

#[test]
fn the_bare_program_has_a_ceiling() {
    let bare = run(Part::Bare).bare;
    assert_rate(bare.bytes_per_s);
    assert_rate(bare.flush_4_mib_bytes_per_s);
    assert_times(bare.flush_us);
    assert_rate(run(Part::BareBuilt).bare.built_bytes_per_s);
    assert_rate(run(Part::BarePush).bare.push_bytes_per_s);
}

#[test]
fn the_bare_program_has_a_floor() {
    let floor = run(Part::Floor).floor;
    assert_times(floor.ack_us);
    assert_times(floor.end_to_end_us);
    let floor = run(Part::FloorPaced).floor;
    assert_times(floor.paced_ack_us);
    assert_times(floor.paced_end_to_end_us);
}

#[test]
fn readers_of_old_data_stand_next_to_the_bare_program() {
    let load = floor::Load {
        record_bytes: 1000,
        records_per_s: Some(20_000),
        frame_records_max: 256,
        time: Duration::from_millis(300),
    };
    let readers = Readers {
        count: 2,
        bytes_per_s: 100e6,
    };
    let beside = Probe::new(config()).beside(load, readers, &mut |_title| {}).unwrap();
    assert_times(Some(beside.alone_ack_us));
    assert_times(Some(beside.with_readers_ack_us));
    assert!((1e6..150e6).contains(&beside.bytes_per_s), "{}", beside.bytes_per_s);
    // Every record but those of the warm-up, however many shared a frame.
    assert!(beside.alone_ack_us.samples > 4000, "{:?}", beside.alone_ack_us);
}
