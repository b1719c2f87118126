//! Gives back what starting took, and what taking up thousands of files did. To understand the kernel's description of itself takes some 13 MiB for half a second;
//! the allocator would keep them for ever, and an agent's memory is counted. Only the first thread's heap shrinks at its end
//! (glibc's mtrim), so there is no other.

#![allow(unsafe_code)] // malloc_trim, for which there is no safe call.

/// Blocks of this size and more are given back when they are freed. By itself the allocator raises this to 32 MiB once such
/// a block was freed, and what tens of thousands of sources need for a moment then leaves holes in its heaps.
#[cfg(target_env = "gnu")]
const GIVEN_BACK_FROM_BYTES: libc::c_int = 4 * 1024 * 1024;

/// To be called first of all: a thread that was made before has a heap of its own, which others then share.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes the allocator's own lock and changes when blocks get pages of their own, when the first heap
    // shrinks and how many heaps there may be, nothing else.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK_FROM_BYTES);
        // As the allocator itself keeps it. Where it is less, the heap shrinks and grows with each buffer at its end.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 * GIVEN_BACK_FROM_BYTES);
        // The heaps of other threads keep the most they ever held at their ends, up to that threshold, and nothing gives it
        // back: some megabytes for who lists tens of thousands of files, and as many for who shows them.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns free memory to the kernel, but for what lies within a page that is used. Nothing where the C library has no such call.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}
