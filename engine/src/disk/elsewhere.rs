//! What is under way in glommio itself: files that it opens, cuts and measures, and its blocking pool. Its executor must go on for
//! that, while for anything else of a core its driver waits in the auxiliary ring.

use std::cell::Cell;

thread_local! {
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
    static NUDGED: Cell<bool> = const { Cell::new(false) };
}

/// Something of this thread, for as long as it lives.
#[derive(Debug)]
pub struct Elsewhere(());

impl Elsewhere {
    /// It begins.
    #[must_use = "it has ended when this is dropped"]
    pub fn begin() -> Elsewhere {
        UNDER_WAY.set(UNDER_WAY.get() + 1);
        Elsewhere(())
    }

    /// Whether there is any on this thread.
    pub fn is_under_way() -> bool {
        UNDER_WAY.get() > 0
    }

    /// glommio should have a turn soon, for what nobody waits for: it closes a file.
    pub fn nudge() {
        NUDGED.set(true);
    }

    /// Whether it should, since this was asked last.
    pub fn take_nudge() -> bool {
        NUDGED.take()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        UNDER_WAY.set(UNDER_WAY.get() - 1);
    }
}
