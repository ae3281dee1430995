//! Locks that belong to an open file, not to the process.
//!
//! A process may have another copy of SQLite, as a Python server has (its module `sqlite3`), or may copy the database's files. Closing any descriptor of a file drops
//! all locks of POSIX that the process has on it, and two copies do not see each other's: a reader that closes would then take the `-wal` file away
//! under the writer, whose commits nobody would find again. Locks of open file descriptions (`F_OFD_SETLK`) have neither flaw, and are the same locks to other processes.
//!
//! A child that was forked without notice, as uWSGI's are, has its parent's connections in SQLite's memory, and would take the locks of new ones for locks that it holds
//! already: to such a child each file is on another device than to its parent.
//!
//! That keeps predlog's locks. The other copy's are POSIX's: a file that has another descriptor in this process is not closed while that lives, but kept for the next open.

/// Has this copy of SQLite take such locks, where the system has them: for a program whose copy is predlog's alone, before it opens any database. It is the copy of
/// all that a program links with `rusqlite` or `sqlx`, and of two connections of one process to a database without WAL the first may keep a lock that the other waits for.
pub fn lock_open_files() {
    #[cfg(target_os = "linux")]
    linux::set();
}

#[cfg(target_os = "linux")]
mod linux {
    use libc::{F_GETLK, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_SETLK, F_SETLKW, c_char, c_int, c_void};
    use parking_lot::Mutex;
    use rusqlite::ffi;
    use std::collections::{HashMap, HashSet};
    use std::ffi::{CStr, OsStr};
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::{LazyLock, Once};

    type Fcntl = unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int;
    type Open = unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int;
    type Close = unsafe extern "C" fn(c_int) -> c_int;
    type Fstat = unsafe extern "C" fn(c_int, *mut libc::stat) -> c_int;
    type Stat = unsafe extern "C" fn(*const c_char, *mut libc::stat) -> c_int;
    type Call = unsafe extern "C" fn();
    /// Device and inode.
    type Identity = (libc::dev_t, libc::ino_t);

    /// The files of this copy of SQLite.
    static FILES: LazyLock<Mutex<Files>> = LazyLock::new(Mutex::default);

    /// The process that has set this up; not its children.
    static PROCESS: LazyLock<u32> = LazyLock::new(std::process::id);

    #[derive(Default)]
    struct Files {
        /// Which process has opened them: of a forked child's, the locks are its parent's.
        open: HashMap<c_int, u32>,
        /// Closed by SQLite, and open still.
        kept: Vec<Kept>,
    }

    struct Kept {
        file: c_int,
        identity: Identity,
        /// To be read, or written as well.
        access: c_int,
        process: u32,
    }

    impl Files {
        /// A kept one in place of a new one.
        fn take(&mut self, identity: Identity, access: c_int) -> Option<c_int> {
            let process = std::process::id();
            let fits = |kept: &Kept| kept.process == process && kept.identity == identity && kept.access == access;
            let at = self.kept.iter().position(fits)?;
            Some(self.kept.swap_remove(at).file)
        }

        /// Closes what nobody else of this process has open any more.
        fn sweep(&mut self) {
            // A parent's stay open: closing them would drop this process's locks as well.
            self.kept.retain(|kept| kept.process == std::process::id());
            let own: HashSet<c_int> = self.kept.iter().map(|kept| kept.file).collect();
            let Ok(directory) = std::fs::read_dir("/proc/self/fd") else { return };
            let files = directory.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
            let others: HashSet<Identity> = files.filter(|file| !own.contains(file)).filter_map(identity).collect();
            self.kept.retain(|kept| {
                let stays = others.contains(&kept.identity);
                if !stays {
                    // SAFETY: SQLite has closed it, so that it is ours alone.
                    unsafe { libc::close(kept.file) };
                }
                stays
            });
        }
    }

    pub(super) fn set() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the default VFS is SQLite's own and lives for ever. Its system calls may be replaced before they are first used, which the caller sees to;
            // SQLite calls these as `open(path, flags, mode)`, `close(file)`, `fstat(file, stat)`, `stat(path, stat)`, and `fcntl` with an int or a pointer behind two ints, which all of Linux's calling
            // conventions pass alike with and without `...`.
            unsafe {
                let vfs = ffi::sqlite3_vfs_find(std::ptr::null());
                let Some(set) = vfs.as_ref().and_then(|vfs| vfs.xSetSystemCall) else { return };
                set(vfs, c"fcntl".as_ptr(), Some(std::mem::transmute::<Fcntl, Call>(fcntl)));
                set(vfs, c"open".as_ptr(), Some(std::mem::transmute::<Open, Call>(open)));
                set(vfs, c"close".as_ptr(), Some(std::mem::transmute::<Close, Call>(close)));
                // Elsewhere SQLite may know this structure by another form.
                if cfg!(target_pointer_width = "64") {
                    LazyLock::force(&PROCESS);
                    set(vfs, c"fstat".as_ptr(), Some(std::mem::transmute::<Fstat, Call>(fstat)));
                    set(vfs, c"stat".as_ptr(), Some(std::mem::transmute::<Stat, Call>(stat)));
                }
            }
        });
    }

    unsafe extern "C" fn fcntl(file: c_int, command: c_int, argument: *mut c_void) -> c_int {
        let of_open_file = match command {
            F_SETLK => F_OFD_SETLK,
            F_SETLKW => F_OFD_SETLKW,
            F_GETLK => F_OFD_GETLK,
            // SAFETY: as the caller gave it.
            _ => return unsafe { libc::fcntl(file, command, argument) },
        };
        // SAFETY: these commands come with a `flock`, which the caller owns.
        unsafe {
            (*argument.cast::<libc::flock>()).l_pid = 0;
            match libc::fcntl(file, of_open_file, argument) {
                // A file system without them.
                -1 if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) => {
                    libc::fcntl(file, command, argument)
                }
                answer => answer,
            }
        }
    }

    unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
        // SAFETY: SQLite gives a path that ends in 0.
        let there = std::fs::metadata(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
        let mut files = FILES.lock();
        let kept = there.ok().filter(|_| flags & libc::O_EXCL == 0);
        let kept = kept.and_then(|there| files.take((there.dev(), there.ino()), flags & libc::O_ACCMODE));
        // SAFETY: as the caller gave them.
        let file = kept.unwrap_or_else(|| unsafe { libc::open(path, flags, mode) });
        if file >= 0 {
            files.open.insert(file, std::process::id());
        }
        file
    }

    unsafe extern "C" fn close(file: c_int) -> c_int {
        let mut files = FILES.lock();
        let process = std::process::id();
        let opened = files.open.remove(&file);
        let Some(identity) = identity(file).filter(|_| opened == Some(process)) else {
            // SAFETY: SQLite gives up its own file.
            return unsafe { libc::close(file) };
        };
        // SAFETY: plain calls on a file that is ours; a `flock` of zeros but for its type is the whole file.
        let access = unsafe {
            let mut all: libc::flock = std::mem::zeroed();
            all.l_type = libc::F_UNLCK as _;
            // What a close would do.
            fcntl(file, F_SETLK, (&raw mut all).cast());
            libc::fcntl(file, libc::F_GETFL) & libc::O_ACCMODE
        };
        files.kept.push(Kept { file, identity, access, process });
        files.sweep();
        0
    }

    unsafe extern "C" fn fstat(file: c_int, found: *mut libc::stat) -> c_int {
        // SAFETY: as the caller gave them.
        unsafe { of_this_process(libc::fstat(file, found), found) }
    }

    unsafe extern "C" fn stat(path: *const c_char, found: *mut libc::stat) -> c_int {
        // SAFETY: as the caller gave them.
        unsafe { of_this_process(libc::stat(path, found), found) }
    }

    /// SQLite tells files by their device and their inode.
    ///
    /// # Safety
    /// With an `answer` of 0, `found` was filled.
    unsafe fn of_this_process(answer: c_int, found: *mut libc::stat) -> c_int {
        let process = std::process::id();
        if answer == 0 && process != *PROCESS {
            // SAFETY: by the caller's promise.
            unsafe { (*found).st_dev ^= libc::dev_t::from(process) << 32 };
        }
        answer
    }

    /// Of a file that still has a name; `None` for directories, and for what was deleted.
    fn identity(file: c_int) -> Option<Identity> {
        // SAFETY: `fstat` writes all of it where it does not fail.
        unsafe {
            let mut found: libc::stat = std::mem::zeroed();
            let regular = libc::fstat(file, &raw mut found) == 0 && found.st_mode & libc::S_IFMT == libc::S_IFREG;
            (regular && found.st_nlink > 0).then_some((found.st_dev, found.st_ino))
        }
    }
}
