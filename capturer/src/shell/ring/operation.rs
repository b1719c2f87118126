//! One entry on its way through the kernel: what it keeps alive, and its plain result.

use std::os::fd::AsFd;
use std::rc::Rc;

use io_uring::{cqueue, squeue};
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};

use super::InFlight;

/// What the kernel may access until the completion; the driver holds it even if the future is dropped.
pub(super) struct Kept<K> {
    /// Buffer or timespec the entry points to.
    pub kept: K,
    /// The descriptor, so that its number can't be given to another file meanwhile.
    pub descriptor: Option<Rc<dyn AsFd>>,
    in_flight: InFlight,
}

/// Turns a completion into (result, what was kept).
pub(super) struct PlainResult<K>(std::marker::PhantomData<K>);

impl<K: 'static> OneshotOutputTransform for PlainResult<K> {
    type Output = (i32, K);
    type StoredData = Kept<K>;

    fn transform_oneshot_output(self, data: Kept<K>, completion: cqueue::Entry) -> (i32, K) {
        let Kept { kept, descriptor, in_flight } = data;
        drop(descriptor);
        drop(in_flight);
        (completion.result(), kept)
    }
}

/// An operation the kernel works on.
pub(super) type Operation<K> = InFlightOneshot<Kept<K>, PlainResult<K>>;

/// Queues an entry. It enters the kernel when the loop parks, together with everything queued by then.
///
/// # Safety
/// Whatever `entry` points to must be owned by `kept` at an address that moving `kept` does not change, and
/// `entry`'s descriptor must be `descriptor`.
pub(super) unsafe fn submit<K: 'static>(
    entry: squeue::Entry,
    kept: K,
    descriptor: Option<Rc<dyn AsFd>>,
) -> Operation<K> {
    let data = Kept { kept, descriptor, in_flight: InFlight::begin() };
    UnsubmittedOneshot::new(data, PlainResult(std::marker::PhantomData), entry).submit()
}
