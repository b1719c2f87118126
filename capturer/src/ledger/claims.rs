//! How the parts of the program report to the ledger: a descriptor is held together with its claim, and dropping it
//! ends both, the claim first.
//!
//! A claim costs a lock and, where programs in the kernel watch, one system call. One is made for each descriptor that
//! lasts, never for a read or a line. What is opened and closed within one step of work is not claimed.

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Ledger, OpenFd, Owner};

/// Tells the kernel's programs who holds a descriptor.
pub trait NoteOwner: Send {
    /// `fd` belongs to the owner with this number for as long as it is open.
    fn note(&mut self, fd: i32, owner: u64);
}

/// The ledger, shared by all threads.
#[derive(Clone, Default)]
pub struct Claims(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    ledger: Ledger,
    kernel: Option<Box<dyn NoteOwner>>,
}

impl Claims {
    /// From here on claims are told to the kernel too, first those that there are. Whatever is claimed is open: a claim ends
    /// before its descriptor, and waits while we tell.
    pub fn tell(&self, mut kernel: Box<dyn NoteOwner>) {
        let mut book = self.book();
        book.ledger.kernel_counts().into_iter().for_each(|(fd, owner)| kernel.note(fd, owner));
        book.kernel = Some(kernel);
    }

    /// Claims a descriptor that was just opened, and holds both.
    pub fn hold<T: AsFd>(&self, inner: T, owner: Owner) -> Claimed<T> {
        Claimed { claim: self.claim(inner.as_fd(), owner), inner }
    }

    /// A claim apart from its descriptor, for what can't be held in a [`Claimed`]. Drop it before the descriptor is
    /// closed.
    pub fn claim(&self, fd: BorrowedFd<'_>, owner: Owner) -> Claim {
        let fd = fd.as_raw_fd();
        let serial = self.claim_number(fd, owner);
        Claim { claims: self.clone(), fd, serial }
    }

    /// A claim that lasts until the process ends.
    pub fn claim_number(&self, fd: i32, owner: Owner) -> u64 {
        let mut book = self.book();
        let number = book.ledger.number_of(owner.clone());
        if let Some(kernel) = &mut book.kernel {
            kernel.note(fd, number);
        }
        book.ledger.claim(fd, owner)
    }

    /// Claims every open and unclaimed descriptor for `owner`: called once, when the program is built up and before it
    /// works.
    pub fn adopt(&self, open: &[OpenFd], owner: &Owner) {
        let mut book = self.book();
        let adopted = book.ledger.adopt(open, owner);
        let number = book.ledger.number_of(owner.clone());
        if let Some(kernel) = &mut book.kernel {
            adopted.into_iter().for_each(|fd| kernel.note(fd, number));
        }
    }

    /// Calls `act` with the ledger, under its lock.
    pub fn with<R>(&self, act: impl FnOnce(&mut Ledger) -> R) -> R {
        act(&mut self.book().ledger)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A poisoned lock is usable: every change of the ledger is one call that does not panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims")
    }
}

/// Dropped when its owner is about to close the descriptor.
#[derive(Debug)]
pub struct Claim {
    claims: Claims,
    fd: i32,
    serial: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.with(|ledger| ledger.release(self.fd, self.serial));
    }
}

/// An open descriptor together with its claim.
#[derive(Debug)]
pub struct Claimed<T> {
    // Fields are dropped in this order, the claim first: once a number is closed, another thread may get it.
    claim: Claim,
    inner: T,
}

impl<T> Claimed<T> {
    /// To read from it and write to it. Another descriptor must not take its place.
    pub(crate) fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// The descriptor without its claim, for another owner to claim.
    pub fn unclaimed(self) -> T {
        let Claimed { claim, inner } = self;
        drop(claim);
        inner
    }
}

impl<T> Deref for Claimed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: AsFd> AsFd for Claimed<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::{KernelFd, View};
    use super::*;

    /// In the other order the claim's end would release a claim that another thread has made for the same number
    /// meanwhile.
    #[test]
    fn the_claim_ends_with_the_descriptor_and_before_it() {
        struct Seen {
            file: File,
            claims: Claims,
        }
        impl AsFd for Seen {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.file.as_fd()
            }
        }
        impl Drop for Seen {
            fn drop(&mut self) {
                assert_eq!(self.claims.with(|ledger| ledger.held_by(&Owner::Admin)), 0);
            }
        }
        let claims = Claims::default();
        let file = File::open("/dev/null").unwrap();
        let held = claims.hold(Seen { file, claims: claims.clone() }, Owner::Admin);
        assert_eq!(claims.with(|ledger| ledger.held_by(&Owner::Admin)), 1);
        drop(held);
        let held = claims.hold(File::open("/dev/null").unwrap(), Owner::Discovery);
        let file = held.unclaimed();
        assert_eq!(claims.with(|ledger| ledger.held_by(&Owner::Discovery)), 0);
        drop(file);
    }

    /// The programs come into the kernel while the agent is at work: what is open then is theirs to count, and what was closed
    /// before must not be missing in the sums.
    #[test]
    fn the_kernel_is_told_what_was_claimed_before_it_counted() {
        struct Noted(Arc<Mutex<Vec<(i32, u64)>>>);
        impl NoteOwner for Noted {
            fn note(&mut self, fd: i32, owner: u64) {
                self.0.lock().unwrap().push((fd, owner));
            }
        }
        let claims = Claims::default();
        let open = || File::open("/dev/null").unwrap();
        drop(claims.hold(open(), Owner::Discovery));
        let held = claims.hold(open(), Owner::Admin);
        let told = Arc::new(Mutex::new(Vec::new()));
        claims.tell(Box::new(Noted(Arc::clone(&told))));
        let number_of = |owner| claims.with(|ledger| ledger.number_of(owner));
        let (admin, discovery) = (number_of(Owner::Admin), number_of(Owner::Discovery));
        let fd = held.as_fd().as_raw_fd();
        assert_eq!(*told.lock().unwrap(), [(fd, admin)]);
        let later = claims.hold(open(), Owner::Discovery);
        assert_eq!(told.lock().unwrap()[1..], [(later.as_fd().as_raw_fd(), discovery)]);
        drop(later);

        let open =
            [OpenFd { fd, kernel: Some(KernelFd { opened_ns: 1, owner: admin }), ..OpenFd::default() }];
        let closed_by = [(discovery, 1)].into();
        let totals = claims.with(|ledger| {
            let newest_claim = ledger.newest_claim();
            let view = View { open: &open, closed_by: Some(&closed_by), newest_claim };
            let totals = ledger.totals_of(view).into_iter();
            totals.map(|(owner, totals)| (owner.clone(), (totals.opened, totals.closed))).collect::<Vec<_>>()
        });
        assert_eq!(totals, [(Owner::Discovery, (2, 2)), (Owner::Admin, (1, 0))]);
    }
}
