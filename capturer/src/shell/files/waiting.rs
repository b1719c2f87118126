//! Openings that wait for a descriptor. They are answered late instead of refused: a source that only has to wait has
//! not failed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Request;

/// Time between two tries.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// Without room, this many are tried at a time anyway: a file that is gone needs no descriptor, and its stream has to
/// know.
const TRIED_WITHOUT_ROOM: usize = 64;

/// Waiting openings, oldest first; see the head of this file.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    requests: VecDeque<Request>,
    next_try: Option<Instant>,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Adds an opening.
    pub fn push(&mut self, request: Request) {
        self.requests.push_back(request);
        self.next_try.get_or_insert_with(|| Instant::now() + TRY_EVERY);
    }

    /// Puts back openings that were taken too early, at the front.
    pub fn put_back(&mut self, requests: Vec<Request>) {
        requests.into_iter().rev().for_each(|request| self.requests.push_front(request));
    }

    /// When to try again; `None` = none waits.
    pub fn next_try(&self) -> Option<Instant> {
        self.next_try.filter(|_| !self.is_empty())
    }

    /// The openings to try now.
    pub fn take_due(&mut self, is_room: bool) -> Vec<Request> {
        if self.next_try().is_none_or(|at| Instant::now() < at) {
            return Vec::new();
        }
        self.next_try = Some(Instant::now() + TRY_EVERY);
        let count = if is_room { self.len() } else { self.len().min(TRIED_WITHOUT_ROOM) };
        self.requests.drain(..count).collect()
    }
}
