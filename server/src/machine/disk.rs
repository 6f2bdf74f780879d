//! The disk of a core. In a release build it is the engine's [`DirectDisk`] and nothing else; in tests it may be a simulated one.

use std::io;

use headwater_engine::{
    TimedSnapshot,
    disk::{DirectDisk, DirectFile, StdDirectory},
};

use super::driver::Driver;

#[cfg(not(test))]
pub(crate) type Disk = DirectDisk;
#[cfg(not(test))]
pub(crate) type File = DirectFile;

#[cfg(test)]
pub(crate) use super::simulated::disk::{Disk, File};

/// The disk of the core that runs on this thread, with names and whole files through `names`.
pub(crate) fn open_disk(names: StdDirectory) -> io::Result<Disk> {
    let disk = DirectDisk::with_names(names)?;
    Driver::with(|driver| driver.waits_in(disk.ring()))?;
    #[cfg(test)]
    let disk = Disk::Direct(disk);
    Ok(disk)
}

#[cfg(not(test))]
#[inline]
pub(crate) fn direct(disk: &Disk) -> &DirectDisk {
    disk
}

#[cfg(test)]
pub(crate) fn direct(disk: &Disk) -> &DirectDisk {
    match disk {
        Disk::Direct(disk) => disk,
        Disk::Simulated(_) => unreachable!("a simulated disk has no ring"),
    }
}

#[cfg(not(test))]
#[inline]
pub(crate) fn direct_file(file: &File) -> &DirectFile {
    file
}

#[cfg(test)]
pub(crate) fn direct_file(file: &File) -> &DirectFile {
    match file {
        File::Direct(file) => file,
        File::Simulated(_) => unreachable!("a simulated file has no page cache"),
    }
}

/// Takes what the disk has completed, and wakes who waits for it.
#[inline]
pub(crate) fn reap(disk: &Disk) {
    direct(disk).ring().reap();
}

/// What the disk has done so far: writes and flushes.
pub(crate) fn disk_stages(disk: &Disk) -> (TimedSnapshot, TimedSnapshot) {
    let stats = direct(disk).stats();
    (stats.writes.snapshot(), stats.flushes.snapshot())
}

/// Ends what the disk runs on its executor, before that ends.
pub(crate) async fn close_disk(disk: &Disk) {
    Driver::with(Driver::leaves_ring);
    direct(disk).ring().close().await;
}

/// Whether the first and the last of these bytes are in the page cache, from where they can be sent at once.
pub(crate) fn is_resident(file: &File, position: u64, length: u64) -> io::Result<bool> {
    direct_file(file).is_resident(position, length)
}

/// Has the kernel read this part of a file into the page cache, and waits for nothing. False if too much is under way.
pub(crate) fn prefetch(disk: &Disk, file: &File, position: u64, length: u32) -> io::Result<bool> {
    let cached = direct_file(file).cached()?;
    Ok(direct(disk).ring().prefetch(cached, position, length))
}
