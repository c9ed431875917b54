//! A line that breaks: it carries so many bytes one way, then it is cut, or goes silent.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

/// Which way the bytes are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// What happens when they are used up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The connections are cut; new ones work.
    Cut,
    /// The connections are cut, and no new one is let through.
    Refuse,
    /// The connection carries nothing more, and stays open; new ones work.
    Stall,
}

struct Line {
    to: SocketAddr,
    way: Way,
    then: Then,
    left: AtomicI64,
    broken: AtomicBool,
    carried: AtomicUsize,
}

/// The line; it listens as long as the process lives.
pub struct Proxy {
    pub address: SocketAddr,
    line: Arc<Line>,
}

impl Proxy {
    pub fn start(to: SocketAddr, way: Way, bytes: i64, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let line = Arc::new(Line {
            to,
            way,
            then,
            left: AtomicI64::new(bytes),
            broken: AtomicBool::new(false),
            carried: AtomicUsize::new(0),
        });
        let carried = Arc::clone(&line);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if carried.broken.load(Ordering::SeqCst) && carried.then == Then::Refuse {
                    continue;
                }
                let Ok(server) = TcpStream::connect(carried.to) else { continue };
                for way in [Way::Up, Way::Down] {
                    let (client, server) =
                        (client.try_clone().unwrap(), server.try_clone().unwrap());
                    let line = Arc::clone(&carried);
                    std::thread::spawn(move || match way {
                        Way::Up => carry(client, server, way, &line),
                        Way::Down => carry(server, client, way, &line),
                    });
                }
            }
        });
        Self { address, line }
    }

    /// Whether it broke.
    pub fn broke(&self) -> bool {
        self.line.broken.load(Ordering::SeqCst)
    }

    /// Bytes that it carried the counted way.
    pub fn carried(&self) -> usize {
        self.line.carried.load(Ordering::SeqCst)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, way: Way, line: &Line) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if way == line.way {
            line.carried.fetch_add(read, Ordering::SeqCst);
            let left = line.left.fetch_sub(read as i64, Ordering::SeqCst) - read as i64;
            if left < 0 && !line.broken.swap(true, Ordering::SeqCst) {
                if line.then == Then::Stall {
                    // Until the other side gives up.
                    while let Ok(1..) = to.read(&mut buffer) {}
                }
                break;
            }
        }
        let refused = line.broken.load(Ordering::SeqCst) && line.then == Then::Refuse;
        if refused || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
