//! From an accepted socket to a connection that speaks: limits, HTTP, the upgrade, and one task for each connection.

mod connection;
mod http;
mod outbox;
mod work;

use std::net::SocketAddr;
use std::sync::Arc;

use choir_core::session::Connection as Machine;
use choir_core::session::connection::Fresh;
use choir_protocol::encoding::base64url_encode;
use choir_protocol::ids::ConnectionId;
use tokio::net::TcpStream;

use crate::Shared;
use crate::environment::NoRandomness;
use connection::Connection;

/// Too many of this address aren't authenticated yet, or too many are connected at all (section 12). Said without HTTP's machinery, which is what is spared.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\nRetry-After: 10\r\nConnection: close\r\nContent-Length: 95\r\n\r\n\
{\"detail\":\"too many connections\",\"status\":429,\"title\":\"Too Many Requests\",\"type\":\"about:blank\"}";

/// Serves one accepted socket until it ends.
pub(crate) async fn serve(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr) {
    // Answers are written whole: waiting for more to send would only delay them.
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let ticket = shared.addresses.enter(peer.ip());
    let Some(ticket) = ticket.filter(|_| shared.counters.connected.get() < shared.config.guard.max_connections as u64)
    else {
        let _ = socket.try_write(TOO_MANY);
        return;
    };
    // Boxed, since a task is as large as its largest branch, and this one is over soon. Whoever hasn't upgraded yet when the server ends is dropped.
    let handshake = Box::pin(http::serve(shared.clone(), socket, peer));
    let upgraded = tokio::select! {
        upgraded = handshake => upgraded,
        () = shared.drained() => None,
    };
    let Some((socket, received)) = upgraded else {
        return;
    };
    let (number, fresh) = match fresh(&shared) {
        Ok(fresh) => fresh,
        Err(error) => {
            tracing::error!(%error, "a connection could not be begun");
            return;
        }
    };
    let connection_id = fresh.connection_id;
    let machine = Machine::new(shared.machine.clone(), fresh, shared.clock.now());
    let connection = Connection::new(shared, number, machine, socket, &received, peer.ip(), ticket);
    tracing::debug!(%connection_id, number, "a connection begins");
    Box::new(connection).run().await;
    tracing::debug!(%connection_id, number, "a connection ended");
}

fn fresh(shared: &Shared) -> Result<(u64, Fresh), NoRandomness> {
    let number = shared.next_connection();
    let fresh = Fresh {
        connection_id: ConnectionId::v7(shared.clock.wall().get(), shared.clock.random()?),
        challenge: base64url_encode(&shared.clock.random::<32>()?),
        seed: u64::from_be_bytes(shared.clock.random()?),
    };
    Ok((number, fresh))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// What an idle connection costs beside its socket: the design's prototype held one in 2.1 KiB. New growth needs a reason.
    #[test]
    fn an_idle_connection_is_a_small_task_without_buffers() {
        let task = size_of_future(|(shared, socket, peer)| serve(shared, socket, peer));
        let state = size_of::<Connection>();
        println!("a connection's task is {task} bytes, and its state {state}");
        assert!(task + state <= 3_072, "{task} + {state}");
    }
}
