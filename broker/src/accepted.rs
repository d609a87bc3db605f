//! What every door does with a socket before it talks to a client.

use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// A client whose machine has gone is noticed after about two minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;
/// Where the system has no descriptors or memory for a connection, another try makes sense a little later.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Off this runtime, since the connection will live on another one.
pub(crate) fn prepare(socket: TcpStream) -> std::io::Result<std::net::TcpStream> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_PROBES)?;
    socket.into_std()
}
