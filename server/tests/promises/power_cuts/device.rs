//! A block device that forgets what was not flushed when the power fails: a loop device on the one file of a file system of our own,
//! which is FUSE's. On it there is an ordinary ext4, which sees a disk with a volatile cache.
//!
//! Only the thread that asked for it, and its children, see the mounts. They go with them, however they end.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant, SystemTime},
};

use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};
use tempfile::TempDir;

use super::medium::{Loss, Medium, Moment};
use crate::support::MemoryFile;

const SIZE_MIB: u64 = 128;

const FILE: &str = "disk";
const FILE_NUMBER: INodeNo = INodeNo(2);

/// What the kernel knows stays so.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);

/// Every second write, and every flush, takes so long: what comes meanwhile overtakes it.
const SLOWNESS: Duration = Duration::from_millis(1);

/// The mounted device.
pub struct Device {
    medium: Arc<Mutex<Medium>>,
    directory: TempDir,
    _session: BackgroundSession,
}

impl Device {
    /// Makes the device with an empty file system; or says why it cannot.
    pub fn new() -> Result<Device, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may mount a file system".to_owned());
        }
        // SAFETY: only this thread's view of mounts changes.
        let unshared = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) };
        unshared.map_err(|error| format!("no mount namespace can be made: {error}"))?;
        run(Command::new("mount").args(["--make-rprivate", "/"]))?;
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let root = directory.path().to_owned();
        let path = |name: &str| root.join(name);
        for name in ["device", "mounted", "cut"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let image = path("image");
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(SIZE_MIB << 20))
            .unwrap();
        let now = ["-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        run(Command::new("mkfs.ext4").args(now).arg(&image))?;
        let medium = Arc::new(Mutex::new(Medium::of(&image).unwrap()));
        let mounted = fuser::Session::new(Files::over(&medium), path("device"), &fuser::Config::default());
        let session = mounted.and_then(fuser::Session::spawn);
        let session = session.map_err(|error| format!("no FUSE file system can be mounted: {error}"))?;
        let device = Device {
            medium,
            directory,
            _session: session,
        };
        // Past the page cache, so that many writes are under way at once.
        let attach = ["--find", "--show", "--direct-io=on"];
        let attached = run(Command::new("losetup").args(attach).arg(path("device").join(FILE)))?;
        // The journal is committed by who asks for it, and not by time.
        let mounted = run(Command::new("mount")
            .args(["-o", "commit=300", attached.trim()])
            .arg(path("mounted")));
        // It goes with the mount.
        run(Command::new("losetup").arg("--detach").arg(attached.trim()))?;
        mounted.map(|_| device)
    }

    /// Where the file system is.
    pub fn mounted(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// All that has happened on the device so far is before it or at it.
    pub fn moment(&self) -> Moment {
        self.medium.lock().unwrap().moment()
    }

    /// Has a look at what is found after the power has failed at this moment: mounts it, and unmounts it afterwards.
    pub fn after_cut<T>(
        &self,
        moment: Moment,
        loss: Loss,
        random: &mut rand::rngs::SmallRng,
        look: impl FnOnce(&Path) -> T,
    ) -> T {
        let path = |name: &str| self.directory.path().join(name);
        let (image, mounted) = (MemoryFile::new(), Mount(path("cut")));
        let found = self.medium.lock().unwrap().cut(moment, loss, random, image.path());
        found.unwrap();
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image.path())
            .arg(&mounted.0))
        .unwrap();
        look(&mounted.0)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Before the file system below it, which is the session's.
        drop(Mount(self.mounted()));
    }
}

/// Unmounted when it is dropped.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.0)) {
            eprintln!("{} stays mounted until the test ends: {error}", self.0.display());
        }
    }
}

fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A directory with one file, which is the medium.
struct Files {
    medium: Arc<Mutex<Medium>>,
    slow: mpsc::Sender<(Instant, Slow)>,
}

/// What is answered a little later.
enum Slow {
    Write(usize, u32, ReplyWrite),
    Flush(usize, ReplyEmpty),
}

impl Slow {
    fn done(self, medium: &Mutex<Medium>) {
        // Whoever is told finds it done.
        match self {
            Slow::Write(write, length, reply) => {
                medium.lock().unwrap().complete(write);
                reply.written(length);
            }
            Slow::Flush(flush, reply) => {
                medium.lock().unwrap().end_flush(flush);
                reply.ok();
            }
        }
    }
}

impl Files {
    fn over(medium: &Arc<Mutex<Medium>>) -> Files {
        let (slow, waiting) = mpsc::channel::<(Instant, Slow)>();
        let files = Files {
            medium: Arc::clone(medium),
            slow,
        };
        let medium = Arc::clone(medium);
        thread::spawn(move || {
            for (due, slow) in waiting {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                slow.done(&medium);
            }
        });
        files
    }

    fn later(&self, slow: Slow) {
        self.slow.send((Instant::now() + SLOWNESS, slow)).unwrap();
    }

    fn attributes(&self, number: INodeNo) -> FileAttr {
        let (size, kind) = if number == FILE_NUMBER {
            (self.medium.lock().unwrap().size(), FileType::RegularFile)
        } else {
            (0, FileType::Directory)
        };
        let time = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino: number,
            size,
            blocks: size / 512,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Files {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let lacking = |flags| io::Error::other(format!("this kernel's FUSE has no {flags:?}"));
        config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).map_err(lacking)
    }

    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE {
            reply.entry(&FOR_EVER, &self.attributes(FILE_NUMBER), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &self.attributes(number));
    }

    fn open(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(1), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(self.medium.lock().unwrap().read(offset, size));
    }

    fn write(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = self.medium.lock().unwrap().write(offset, data);
        let writing = Slow::Write(write, data.len() as u32, reply);
        if write.is_multiple_of(2) {
            self.later(writing);
        } else {
            writing.done(&self.medium);
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // A descriptor is closed. That makes nothing durable.
        reply.ok();
    }

    fn fsync(&self, _request: &Request, _number: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let flush = self.medium.lock().unwrap().begin_flush();
        self.later(Slow::Flush(flush, reply));
    }
}
