//! A terminal for a command to run on.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

/// Only ends what hangs.
const LIMIT: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// A command on a terminal, which is not its controlling one: nothing that is typed is a signal. Killed when it is dropped.
pub struct Terminal {
    child: Child,
    /// What is typed goes in here, and what is shown comes out, byte for byte.
    keys_and_screen: File,
    shown: Vec<u8>,
}

impl Terminal {
    /// Runs the command with all of its streams on a terminal of so many columns and rows.
    pub fn run(mut command: Command, columns: u16, rows: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let own_side = openpt(flags).unwrap();
        grantpt(&own_side).unwrap();
        unlockpt(&own_side).unwrap();
        let name = ptsname(&own_side, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let other_side = File::from(rustix::fs::open(name, flags, Mode::empty()).unwrap());
        let mut attributes = tcgetattr(&other_side).unwrap();
        attributes.make_raw();
        tcsetattr(&other_side, OptionalActions::Now, &attributes).unwrap();
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&other_side, size).unwrap();
        command
            .stdin(other_side.try_clone().unwrap())
            .stdout(other_side.try_clone().unwrap())
            .stderr(other_side);
        // With the command goes this process's hold on the other side: it is at its end when the child is.
        Self {
            child: command.spawn().unwrap(),
            keys_and_screen: File::from(own_side),
            shown: Vec::new(),
        }
    }

    /// Of the command's process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn type_in(&mut self, text: &str) {
        self.keys_and_screen.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until this has been shown so often.
    pub fn await_shown(&mut self, text: &str, times: usize) {
        let count = |shown: &[u8]| String::from_utf8_lossy(shown).matches(text).count();
        while count(&self.shown) < times {
            assert!(self.read_more(), "it ended: {}", String::from_utf8_lossy(&self.shown));
        }
    }

    /// Everything that was shown, once the command has ended, and its exit code.
    pub fn end(mut self) -> (Option<i32>, Vec<u8>) {
        while self.read_more() {}
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.shown))
    }

    /// `false` when nobody has the other side any more.
    fn read_more(&mut self) -> bool {
        let mut polled = [PollFd::new(&self.keys_and_screen, PollFlags::IN)];
        let ready = poll(&mut polled, Some(&LIMIT)).unwrap();
        assert!(ready > 0, "it hangs: {}", String::from_utf8_lossy(&self.shown));
        let mut bytes = [0; 4096];
        match self.keys_and_screen.read(&mut bytes) {
            Ok(count) => {
                self.shown.extend_from_slice(&bytes[..count]);
                count > 0
            }
            // So Linux says it.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
