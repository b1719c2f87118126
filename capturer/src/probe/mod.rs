//! The witness: what the kernel says this process holds, set against what the program believes it holds.
//!
//! ```text
//! program ── claim(fd, owner), release(fd) ─▶ ledger.rs ◀── live descriptors ── procfs_tier.rs ◀── /proc/self
//!                                                 │
//!                                                 └─▶ LedgerReport ─▶ metrics, health, log
//! ```
//! Tiers differ in how they see the kernel, not in what is done with it: this one reads /proc at an interval, which
//! needs no rights and sees what is open at that moment; a tier that sees each opening and closing as it happens adds
//! counts to the same report.
//!
//! Not here: when to look and what to do about a leak (the agent), and anything about other processes.

pub mod ledger;
pub mod procfs_tier;
