//! Bodies of answers: one that is there, or records as they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Frame, SizeHint};

use crate::telemetry::taps::Watch;

/// See the module's head.
pub(super) enum Body {
    Whole(Full<Bytes>),
    /// Until the reader leaves or the agent stops.
    Live(Watch),
}

impl Body {
    pub(super) fn whole(bytes: Bytes) -> Body {
        Body::Whole(Full::new(bytes))
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
            Body::Whole(body) => Pin::new(body).poll_frame(cx),
            Body::Live(watch) => watch.poll_piece(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(body) => body.is_end_stream(),
            Body::Live(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(body) => body.size_hint(),
            Body::Live(_) => SizeHint::default(),
        }
    }
}
