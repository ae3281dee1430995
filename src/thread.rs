//! Threads that take none of the process's signals: those are for the threads of whoever embeds this, which may have blocked some to wait for them.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread.
///
/// # Errors
/// The system has no more.
pub fn spawn<T: Send + 'static>(name: impl Into<String>, run: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    // A thread inherits what is blocked. This one's own is as before when it has started.
    let before = block();
    let started = Builder::new().name(name.into()).spawn(run);
    if let Some(before) = before {
        // SAFETY: `before` is what this thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    }
    started
}

/// Blocks the signals of this thread, but for those that tell what it has done itself, and says which were blocked before.
fn block() -> Option<libc::sigset_t> {
    // SAFETY: both sets are written by the calls before they are read.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        for own in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGPROF] {
            libc::sigdelset(&raw mut all, own);
        }
        (libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before) == 0).then_some(before)
    }
}

#[cfg(test)]
mod tests {
    fn blocks(signal: libc::c_int) -> bool {
        // SAFETY: the set is written before it is read.
        unsafe {
            let mut now = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut now);
            libc::sigismember(&raw const now, signal) == 1
        }
    }

    #[test]
    fn a_thread_takes_no_signals_and_who_started_it_takes_those_it_took() {
        let seen = super::spawn("test", || [libc::SIGTERM, libc::SIGINT, libc::SIGSEGV].map(blocks)).unwrap().join().unwrap();
        assert_eq!((seen, blocks(libc::SIGTERM)), ([true, true, false], false));
    }
}
