//! Gives memory back to the kernel after the start and after thousands of files were taken up. Parsing the kernel's
//! description of itself takes some 13 MiB for half a second; the allocator would keep them for ever, and an agent's
//! memory is judged. Only the first thread's heap shrinks at its end (glibc's mtrim), so there is no other.

#![allow(unsafe_code)] // malloc_trim, for which there is no safe call.

/// Blocks of at least this size go back when they are freed. By default the allocator raises this to 32 MiB once such a
/// block was freed, and the memory that tens of thousands of sources need for a moment then leaves holes in its heaps.
#[cfg(target_env = "gnu")]
const GIVEN_BACK_FROM_BYTES: libc::c_int = 4 * 1024 * 1024;

/// Call this first: a thread made before has a heap of its own, which others then share.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes the allocator's own lock and changes when blocks get pages of their own, when the first heap
    // shrinks and how many heaps there may be, nothing else.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK_FROM_BYTES);
        // The allocator's own ratio. With less, the heap would shrink and grow with each buffer at its end.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 * GIVEN_BACK_FROM_BYTES);
        // The heaps of other threads keep at their ends the most they ever held, up to that threshold, and nothing
        // gives it back: some megabytes for the thread that lists tens of thousands of files, and as many for the one
        // that shows them.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns free memory to the kernel, except within pages that are in use. Does nothing if the C library has no such
/// call.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}
