//! A line between two programs on one machine that takes as long as one between machines: whatever enters leaves so much later.
//! It delays and does nothing else: nothing is lost, and no rate is kept.
#![allow(clippy::disallowed_methods, reason = "a line of a load keeps time")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// More than that on its way holds up whoever sends.
const PIECES_UNDER_WAY_MAX: usize = 1024;
const PIECE_BYTES: usize = 64 << 10;

/// Begins a line that leads to `target`; the address of its other end. It is there until the process ends.
pub fn lay(target: SocketAddr, each_way: Duration) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            // Where nobody listens yet, whoever called sees his connection end, and calls again.
            let Ok(far) = TcpStream::connect(target) else { continue };
            let (Ok(back_from), Ok(back_to)) = (far.try_clone(), near.try_clone()) else { continue };
            carry(near, far, each_way);
            carry(back_from, back_to, each_way);
        }
    });
    Ok(address)
}

fn carry(mut from: TcpStream, to: TcpStream, delay: Duration) {
    let (enters, leaves) = sync_channel(PIECES_UNDER_WAY_MAX);
    thread::spawn(move || let_out(&leaves, to));
    thread::spawn(move || {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            if enters.send((Instant::now() + delay, piece[..count].to_vec())).is_err() {
                break;
            }
        }
    });
}

fn let_out(leaves: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    // The system wakes a thread up to 50 us late, so that it can wake several at once.
    let _ = rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN));
    let _ = to.set_nodelay(true);
    while let Ok((due, piece)) = leaves.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_enters_comes_out_whole_and_no_sooner_than_it_may() -> anyhow::Result<()> {
        let far = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let each_way = Duration::from_millis(20);
        let mut near = TcpStream::connect(lay(far.local_addr()?, each_way)?)?;
        let echo = thread::spawn(move || -> std::io::Result<u64> {
            let (mut stream, _) = far.accept()?;
            std::io::copy(&mut stream.try_clone()?, &mut stream)
        });
        let (sent, mut came) = ((0..200_000u32).map(|n| n as u8).collect::<Vec<_>>(), vec![0; 200_000]);
        let started = Instant::now();
        near.write_all(&sent)?;
        near.read_exact(&mut came)?;
        assert!(started.elapsed() >= 2 * each_way);
        assert!(came == sent);
        near.shutdown(Shutdown::Write)?;
        assert_eq!(echo.join().expect("no panic")?, 200_000);
        Ok(())
    }
}
