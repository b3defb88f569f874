//! A door between a store and a server, that a test can close.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A proxy for one server.
pub struct Proxy {
    address: String,
    door: Arc<Door>,
}

struct Door {
    open: AtomicBool,
    /// Octets that came from the server.
    received: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
    over: AtomicBool,
}

impl Proxy {
    /// Opens a door to a server at `http://ADDRESS`.
    pub fn to(endpoint: &str) -> Proxy {
        let server = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let door = Arc::new(Door {
            open: AtomicBool::new(true),
            received: AtomicU64::new(0),
            connections: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let its = Arc::clone(&door);
        listener.set_nonblocking(true).expect("a socket of ours");
        thread::spawn(move || {
            while !its.over.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((client, _)) => its.serve(client, &server),
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Proxy { address, door }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        self.address.clone()
    }

    /// Cuts all connections, and makes no more.
    pub fn close(&self) {
        self.door.open.store(false, Ordering::SeqCst);
        for connection in self.door.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    pub fn open(&self) {
        self.door.open.store(true, Ordering::SeqCst);
    }

    /// Octets that have come from the server.
    pub fn received(&self) -> u64 {
        self.door.received.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.door.over.store(true, Ordering::SeqCst);
        self.close();
    }
}

impl Door {
    fn serve(self: &Arc<Self>, client: TcpStream, server: &str) {
        // A connection that is dropped here is closed.
        if !self.open.load(Ordering::SeqCst) {
            return;
        }
        let Ok(server) = TcpStream::connect(server) else { return };
        client.set_nonblocking(false).expect("a socket of ours");
        let copy = |stream: &TcpStream| stream.try_clone().expect("a copy of a descriptor");
        self.connections.lock().unwrap().extend([copy(&client), copy(&server)]);
        // It may have been closed meanwhile.
        if !self.open.load(Ordering::SeqCst) {
            let _ = client.shutdown(Shutdown::Both);
        }
        let (up_from, up_to) = (copy(&client), copy(&server));
        thread::spawn(move || pump(up_from, up_to, |_| {}));
        let door = Arc::clone(self);
        let count = move |octets| {
            door.received.fetch_add(octets as u64, Ordering::SeqCst);
        };
        thread::spawn(move || pump(server, client, count));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, count: impl Fn(usize)) {
    let mut buffer = [0; 16 << 10];
    let mut pumped = || -> io::Result<()> {
        loop {
            let octets = from.read(&mut buffer)?;
            if octets == 0 {
                return Ok(());
            }
            count(octets);
            to.write_all(&buffer[..octets])?;
        }
    };
    // However it ends, it is the end of the connection.
    let _ = pumped();
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
