//! Locks that belong to an open file, not to the process.
//!
//! A process may have another copy of SQLite, as a Python server has (its module `sqlite3`), or may copy the database's files. Closing any descriptor of a file drops
//! all locks of POSIX that the process has on it, and two copies do not see each other's: a reader that closes would then take the `-wal` file away
//! under the writer, whose commits nobody would find again. Locks of open file descriptions (`F_OFD_SETLK`) have neither flaw, and are the same locks to other processes.

/// Has this copy of SQLite take such locks, where the system has them: for a program whose copy is predlog's alone, before it opens any database. It is the copy of
/// all that a program links with `rusqlite` or `sqlx`, and of two connections of one process to a database without WAL the first may keep a lock that the other waits for.
pub fn lock_open_files() {
    #[cfg(target_os = "linux")]
    linux::set();
}

#[cfg(target_os = "linux")]
mod linux {
    use libc::{F_GETLK, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_SETLK, F_SETLKW, c_int, c_void};
    use rusqlite::ffi;
    use std::sync::Once;

    type Fcntl = unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int;

    pub(super) fn set() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the default VFS is SQLite's own and lives for ever. Its system calls may be replaced before they are first used, which the caller sees to;
            // SQLite calls this one as `fcntl`, with an int or a pointer behind two ints, which all of Linux's calling conventions pass alike with and without `...`.
            unsafe {
                let vfs = ffi::sqlite3_vfs_find(std::ptr::null());
                if let Some(set) = vfs.as_ref().and_then(|vfs| vfs.xSetSystemCall) {
                    let call = std::mem::transmute::<Fcntl, unsafe extern "C" fn()>(fcntl);
                    set(vfs, c"fcntl".as_ptr(), Some(call));
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
}
