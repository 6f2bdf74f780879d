//! What is called durable was flushed by the device: seen with the kernel's own count, as a test that kills the process cannot
//! tell a flush from none.

use std::path::Path;

use headwater_engine::disk::{DirectDisk, Directory as _, Disk as _, SegmentFile as _};

use crate::{
    mounted::{flushes, on_a_new_file_system},
    setting::{NOW, batch, on_an_executor, open},
};

/// Far more than the file system's journal would flush by itself meanwhile.
const APPENDS: usize = 50;

/// The future does not end before the device has flushed again.
async fn flushing<T>(directory: &Path, what: &str, future: impl Future<Output = T>) -> T {
    let before = flushes(directory);
    let result = future.await;
    assert!(flushes(directory) > before, "{what}: no flush has reached the device");
    result
}

/// Appends of one batch of so many bytes, one after another, each acknowledged before the next.
fn each_append_is_flushed(name: &str, size: usize) {
    on_a_new_file_system(name, &[], |directory| {
        let directory = directory.to_owned();
        on_an_executor(async move |disk| {
            let log = open(&disk, &directory).await;
            let batch = batch(size);
            for number in 0..APPENDS {
                let acknowledged = async {
                    let appended = log.append(&batch, NOW).unwrap();
                    log.flush().await.unwrap();
                    appended.durable.await.unwrap();
                };
                flushing(&directory, &format!("append {number}"), acknowledged).await;
            }
            log.close().await.unwrap();
        });
    });
}

#[test]
fn a_lone_small_append_is_not_acknowledged_before_the_device_has_flushed() {
    each_append_is_flushed(
        "a_lone_small_append_is_not_acknowledged_before_the_device_has_flushed",
        500,
    );
}

#[test]
fn a_large_append_is_not_acknowledged_before_the_device_has_flushed() {
    each_append_is_flushed(
        "a_large_append_is_not_acknowledged_before_the_device_has_flushed",
        900 << 10,
    );
}

#[test]
fn a_change_of_names_whole_files_or_sizes_is_not_done_before_the_device_has_flushed() {
    let name = "a_change_of_names_whole_files_or_sizes_is_not_done_before_the_device_has_flushed";
    on_a_new_file_system(name, &[], |directory| {
        let directory = directory.to_owned();
        on_an_executor(async move |disk| {
            let path = |name: &str| directory.join(name);
            for _ in 0..APPENDS / 10 {
                change_everything(&disk, &directory, path).await;
            }
        });
    });
}

async fn change_everything(disk: &DirectDisk, directory: &Path, path: impl Fn(&str) -> std::path::PathBuf) {
    let (made, file, renamed) = (path("made"), path("made/file"), path("made/renamed"));
    flushing(directory, "create_dir", disk.create_dir(&made)).await.unwrap();
    let replaced = disk.replace_file(&file, b"old".to_vec());
    flushing(directory, "replace_file", replaced).await.unwrap();
    flushing(directory, "rename", disk.rename(&file, &renamed))
        .await
        .unwrap();
    flushing(directory, "remove_file", disk.remove_file(&renamed))
        .await
        .unwrap();
    let segment = flushing(directory, "open", disk.open(&file, true)).await.unwrap();
    segment.write_zeros(0, 64 << 10).await.unwrap();
    flushing(directory, "truncate", segment.truncate(4096)).await.unwrap();
    flushing(directory, "remove_dir_all", disk.remove_dir_all(&made))
        .await
        .unwrap();
}
