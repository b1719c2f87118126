//! Bodies of answers: complete ones, and records as they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::pieces::Pieces;
use crate::telemetry::taps::Watch;

/// The body of an answer.
pub(super) enum Body {
    Whole(Pieces),
    /// Records until the reader leaves or the agent stops.
    Live(Watch),
}

impl Body {
    pub(super) fn whole(pieces: Pieces) -> Body {
        Body::Whole(pieces)
    }

    pub(super) fn live(watch: Watch) -> Body {
        Body::Live(watch)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Body::Whole(pieces) => Poll::Ready(pieces.take().map(|piece| Ok(Frame::data(piece)))),
            Body::Live(watch) => watch.poll_piece(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(pieces) => pieces.len() == 0,
            Body::Live(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(pieces) => SizeHint::with_exact(pieces.len() as u64),
            Body::Live(_) => SizeHint::default(),
        }
    }
}
