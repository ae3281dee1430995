//! How the program's allocator is set.

/// Keeps freed memory for the next buffer of the same size. Sealing frees and asks for megabytes many times a second; glibc would give each back to the
/// system and fault it in again, a tenth of the time that sealing takes. What is kept is bounded by what sealing holds at its most.
///
/// Called first of all, before any other thread runs. A library must not decide this for its embedder, so only the program does.
#[cfg(target_env = "gnu")]
pub fn keep() {
    // SAFETY: mallopt only sets parameters of the allocator, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
    }
}

/// Other allocators decide for themselves.
#[cfg(not(target_env = "gnu"))]
pub fn keep() {}
