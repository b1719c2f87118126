//! Connections to the Engine, and requests to it. A connection is either idle here or with the operation that uses it.

use std::rc::Rc;

use super::{Done, Shell, close, in_time};
use crate::capture::io::{ConnId, Event, RequestError, RequestId};
use crate::ledger::Owner;
use crate::limits::{ANSWER_BYTES_MAX, API_GATHER_BYTES};
use crate::model::record::StreamId;
use crate::shell::http::{Cancel, Connection};

/// Bytes of an error answer that are kept.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

pub(super) enum Slot {
    /// No operation uses it.
    Resting(Box<Connection>, Rc<Cancel>),
    /// A future has it.
    Busy { cancel: Rc<Cancel>, closing: bool },
}

/// A connection that was answered with 200, another status with the beginning of its body, or an error.
pub(super) type Opening = Result<Result<Box<Connection>, (u16, Vec<u8>)>, RequestError>;

impl Shell {
    pub(super) fn get(&mut self, request: RequestId, path: String) {
        let (socket_path, timeout) = (self.socket_path.clone(), self.read_timeout);
        let cancel = Rc::<Cancel>::default();
        let claims = self.claims.clone();
        self.requests.insert(request, Rc::clone(&cancel));
        let large = Rc::clone(&self.large_answers);
        self.run(async move {
            let answer = async {
                let (status, mut connection) =
                    Connection::get(&socket_path, &path, timeout, &cancel, (&claims, Owner::Discovery))
                        .await?;
                let body = connection.whole_body(ANSWER_BYTES_MAX, &large).await;
                connection.close().await;
                Ok((status, body?))
            };
            Done::Answered(request, in_time(answer, &path, timeout, &cancel).await)
        });
    }

    pub(super) fn open(&mut self, conn: ConnId, stream: Option<StreamId>, path: String) {
        let (claims, owner) = (self.claims.clone(), self.owner(stream));
        let (socket_path, timeout) = (self.socket_path.clone(), self.read_timeout);
        let cancel = Rc::<Cancel>::default();
        self.connections.insert(conn, Slot::Busy { cancel: Rc::clone(&cancel), closing: false });
        let large = Rc::clone(&self.large_answers);
        self.run(async move {
            let opening = async {
                let (status, mut connection) =
                    Connection::get(&socket_path, &path, timeout, &cancel, (&claims, owner)).await?;
                if status == 200 {
                    return Ok(Ok(Box::new(connection)));
                }
                let body = connection.whole_body(REFUSAL_BYTES_MAX, &large).await;
                connection.close().await;
                Ok(Err((status, body?)))
            };
            Done::Opened(conn, in_time(opening, &path, timeout, &cancel).await)
        });
    }

    pub(super) fn read(&mut self, conn: ConnId, mut buffer: Vec<u8>) {
        match self.connections.remove(&conn) {
            Some(Slot::Resting(mut connection, cancel)) => {
                self.connections.insert(conn, Slot::Busy { cancel, closing: false });
                self.run(async move {
                    let outcome = connection.read(&mut buffer, API_GATHER_BYTES).await;
                    Done::Read(conn, connection, outcome, buffer)
                });
            }
            Some(busy) => {
                debug_assert!(false, "a read of a busy connection");
                self.connections.insert(conn, busy);
            }
            None => {}
        }
    }

    pub(super) fn close(&mut self, conn: ConnId) {
        match self.connections.remove(&conn) {
            Some(Slot::Resting(connection, _cancel)) => {
                #[cfg(feature = "test-faults")]
                crate::faults::on_close(_cancel);
                self.run(close(conn, connection));
            }
            Some(Slot::Busy { cancel, .. }) => {
                #[cfg(feature = "test-faults")]
                crate::faults::on_close(cancel.clone());
                cancel.cancel();
                self.connections.insert(conn, Slot::Busy { cancel, closing: true });
            }
            None => self.run(async move { Done::Closed(conn) }),
        }
    }

    pub(super) fn on_opened(&mut self, conn: ConnId, opening: Opening) -> Vec<Event> {
        let slot = self.connections.remove(&conn);
        match (slot, opening) {
            (Some(Slot::Busy { cancel, closing: false }), Ok(Ok(connection))) => {
                self.connections.insert(conn, Slot::Resting(connection, cancel));
                vec![Event::ConnOpened { conn, result: Ok((200, Vec::new())) }]
            }
            (Some(Slot::Busy { closing: false, .. }), Ok(Err(refusal))) => {
                vec![Event::ConnOpened { conn, result: Ok(refusal) }]
            }
            (Some(Slot::Busy { closing: false, .. }), Err(error)) => {
                vec![Event::ConnOpened { conn, result: Err(error) }]
            }
            (_, Ok(Ok(connection))) => {
                self.run(close(conn, connection));
                Vec::new()
            }
            (_, Ok(Err(_)) | Err(_)) => vec![Event::ConnClosed { conn }],
        }
    }
}
