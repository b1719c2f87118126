//! What each descriptor was last known to hold, and who claimed it.
//!
//! ```text
//! put     only where there is nothing     of several who see an opening, one is heard
//! remove  only what is still there        of several who see a closing, one is heard
//! ```
//! Whoever is heard does what belongs to it (table.rs). Two ways: hash maps, which every kernel has; and, with feature
//! `linux-5-15`, arrays for low numbers, where putting and removing are one atomic instruction each and no call.

use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use capturer_ebpf::{Holds, LOW_FDS, SLOTS_MAX, Slot, SlotKey};

#[map]
static SLOTS: HashMap<SlotKey, Slot> = HashMap::with_max_entries(ENTRIES_MAX, 0);
#[map]
static OWNERS: HashMap<SlotKey, u64> = HashMap::with_max_entries(ENTRIES_MAX, 0);

/// So that of one process no more are followed than without arrays.
const ENTRIES_MAX: u32 = if cfg!(feature = "linux-5-15") { SLOTS_MAX - LOW_FDS } else { SLOTS_MAX };

const EEXIST: i32 = -17;
/// Update only what is not there.
pub const NO_EXIST: u64 = 1;

/// What became of [`put`].
pub enum Put {
    Done,
    /// This was there.
    Taken(Holds),
    /// The map is full.
    NoRoom,
}

/// Notes what a descriptor holds, if nothing is noted.
#[inline(always)]
pub fn put(key: SlotKey, slot: Slot) -> Put {
    #[cfg(feature = "linux-5-15")]
    if key.fd < LOW_FDS {
        return low::put(key, slot);
    }
    match SLOTS.insert(key, slot, NO_EXIST) {
        Ok(()) => Put::Done,
        Err(EEXIST) => Put::Taken(hashed(key)),
        Err(_) => Put::NoRoom,
    }
}

/// What is noted of a descriptor.
#[inline(always)]
pub fn known(key: SlotKey) -> Holds {
    #[cfg(feature = "linux-5-15")]
    if key.fd < LOW_FDS {
        return low::known(key);
    }
    hashed(key)
}

/// Takes away what is noted. Whether it was there: only one is told so.
#[inline(always)]
pub fn remove(key: SlotKey, _holds: Holds) -> bool {
    #[cfg(feature = "linux-5-15")]
    if key.fd < LOW_FDS {
        return low::remove(key, _holds);
    }
    SLOTS.remove(key).is_ok()
}

/// Takes away who had claimed a descriptor that has gone; 0 = nobody.
#[inline(always)]
pub fn take_owner(key: SlotKey) -> u64 {
    #[cfg(feature = "linux-5-15")]
    if key.fd < LOW_FDS {
        return low::take_owner(key);
    }
    let Some(claimed) = OWNERS.get_ptr(key) else { return 0 };
    // SAFETY: written by the agent once for this opening.
    let owner = unsafe { *claimed };
    let _ = OWNERS.remove(key);
    owner
}

#[inline(always)]
fn hashed(key: SlotKey) -> Holds {
    // SAFETY: a value read while the entry is reused is another's; callers set it against the kernel's table.
    SLOTS.get_ptr(key).map_or(Holds::NOTHING, |slot| unsafe { (*slot).holds })
}

#[cfg(feature = "linux-5-15")]
mod low {
    use aya_ebpf::macros::map;
    use aya_ebpf::maps::Array;
    use capturer_ebpf::{Holds, LOW_FDS, Slot, SlotKey, WATCHES_MAX};
    use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xchg};

    use super::Put;

    #[map]
    static LOW: Array<Slot> = Array::with_max_entries(WATCHES_MAX * LOW_FDS, 0);
    #[map]
    static LOW_OWNERS: Array<u64> = Array::with_max_entries(WATCHES_MAX * LOW_FDS, 0);

    #[inline(always)]
    pub fn put(key: SlotKey, slot: Slot) -> Put {
        let Some(place) = LOW.get_ptr_mut(index(key)) else { return Put::NoRoom };
        // SAFETY: a value of the array lives as long as the array, and is aligned.
        unsafe {
            let before = exchange(place, Holds::NOTHING, slot.holds);
            if before != Holds::NOTHING {
                return Put::Taken(before);
            }
            // Until then a reader takes it for opened when the one before was. It has not been told of this one: the
            // call that opens it has not ended.
            core::ptr::write_volatile(&raw mut (*place).opened_ns, slot.opened_ns);
        }
        Put::Done
    }

    #[inline(always)]
    pub fn known(key: SlotKey) -> Holds {
        // SAFETY: as above.
        LOW.get_ptr(index(key))
            .map_or(Holds::NOTHING, |place| unsafe { Holds(core::ptr::read_volatile(place.cast::<u64>())) })
    }

    #[inline(always)]
    pub fn remove(key: SlotKey, holds: Holds) -> bool {
        let Some(place) = LOW.get_ptr_mut(index(key)) else { return false };
        // SAFETY: as above.
        holds != Holds::NOTHING && unsafe { exchange(place, holds, Holds::NOTHING) } == holds
    }

    #[inline(always)]
    pub fn take_owner(key: SlotKey) -> u64 {
        let Some(place) = LOW_OWNERS.get_ptr_mut(index(key)) else { return 0 };
        // SAFETY: as above. Most are claimed by nobody, and a look is cheaper than an exchange.
        unsafe {
            if core::ptr::read_volatile(place) == 0 {
                return 0;
            }
            atomic_xchg::<u64, { AtomicOrdering::Relaxed }>(place, 0)
        }
    }

    #[inline(always)]
    fn index(key: SlotKey) -> u32 {
        key.watch * LOW_FDS + key.fd
    }

    /// Puts `new` in place of `expected`, if that is there; answers what was there.
    #[inline(always)]
    unsafe fn exchange(place: *mut Slot, expected: Holds, new: Holds) -> Holds {
        const ANY: AtomicOrdering = AtomicOrdering::Relaxed;
        // SAFETY: the caller's. The word is the first of the slot.
        let (before, _) = unsafe { atomic_cxchg::<u64, ANY, ANY>(place.cast(), expected.0, new.0) };
        Holds(before)
    }
}
