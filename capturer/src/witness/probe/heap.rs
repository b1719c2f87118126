//! Gives back what starting took, and what taking up thousands of files did. To understand the kernel's description of itself takes some 13 MiB for half a second;
//! the allocator would keep them for ever, and an agent's memory is counted. Only the first thread's heap shrinks at its end
//! (glibc's mtrim), so it is to be done there.

#![allow(unsafe_code)] // malloc_trim, for which there is no safe call.

/// Returns free memory to the kernel: of the first thread's heap all, of other threads' what lies between used parts. Nothing where the C library has no such call.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}
