//! A small server of HTTP: files in memory, `Authorization` checked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use qpipe::config::RemoteMode;

use super::machine::{Machine, spec};
use super::sharing::share;

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// For what is not there, a page without end.
const ENDLESS: &str = "endless";

/// Bytes sent of such pages.
static SENT: AtomicUsize = AtomicUsize::new(0);

/// How a server behaves.
#[derive(Clone, Copy)]
struct Rules {
    /// The header `Authorization` that it wants.
    authorization: &'static str,
    /// Whether it knows ranges.
    ranges: bool,
    /// What it says of what is not there.
    missing: &'static str,
}

/// The server; it listens as long as the process lives.
struct Server {
    address: SocketAddr,
    files: Files,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(authorization: &'static str, ranges: bool) -> Self {
        Self::with(Rules { authorization, ranges, missing: "404 Not Found" })
    }

    fn with(rules: Rules) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (files, asked) = (Files::default(), Arc::new(Mutex::new(Vec::new())));
        let own = (Arc::clone(&files), Arc::clone(&asked));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (files, asked) = own.clone();
                std::thread::spawn(
                    move || {
                        while answer(&client, rules, &files, &asked).is_some() {}
                    },
                );
            }
        });
        Self { address, files, asked }
    }
}

/// Answers a request; `None` at the end of the connection.
fn answer(
    mut client: &TcpStream,
    rules: Rules,
    files: &Files,
    asked: &Mutex<Vec<String>>,
) -> Option<()> {
    let Rules { authorization, ranges, missing } = rules;
    // The client waits for the answer before it sends the next request.
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |it| it.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let range = headers.get("range").cloned();
    asked.lock().unwrap().push(format!("{method} {}", range.clone().unwrap_or_default()));
    let mut send = |status: &str, more: &str, length: usize, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{more}\r\n");
        client.write_all(head.as_bytes()).and_then(|()| client.write_all(body)).ok()
    };
    if headers.get("authorization").map_or("", String::as_str) != authorization {
        return send("401 Unauthorized", "", 0, b"");
    }
    let file = files.lock().unwrap().get(&path).cloned();
    let date = "last-modified: Wed, 01 Jan 2025 00:00:00 GMT\r\n";
    match (&*method, file) {
        ("PUT", _) => {
            files.lock().unwrap().insert(path, body);
            send("201 Created", "", 0, b"")
        }
        ("DELETE", Some(_)) => {
            files.lock().unwrap().remove(&path);
            send("204 No Content", "", 0, b"")
        }
        ("HEAD", Some(file)) => send("200 OK", date, file.len(), b""),
        ("GET", Some(file)) => {
            let start = range.filter(|_| ranges);
            let start =
                start.and_then(|it| it.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
            let Some(start): Option<usize> = start else {
                return send("200 OK", date, file.len(), &file);
            };
            if start >= file.len() {
                return send("416 Range Not Satisfiable", "", 0, b"");
            }
            let more =
                format!("{date}content-range: bytes {start}-{}/{}\r\n", file.len() - 1, file.len());
            send("206 Partial Content", &more, file.len() - start, &file[start..])
        }
        _ if missing == ENDLESS => {
            // Until the client hangs up.
            let page = vec![b'x'; 1 << 16];
            send("400 Bad Request", "", usize::MAX >> 1, b"")?;
            while client.write_all(&page).is_ok() {
                SENT.fetch_add(page.len(), Ordering::SeqCst);
            }
            None
        }
        _ => send(missing, "", 0, b""),
    }
}

#[test]
fn machines_share_results_through_http() {
    let server = Server::start("", true);
    share(&spec(&format!("http://{}/dav/team", server.address), &[]));
    let files = server.files.lock().unwrap();
    assert!(files.keys().all(|path| path.starts_with("/dav/team/v1/")), "{:?}", files.keys());
}

#[test]
fn users_passwords_and_tokens_come_from_the_environment() {
    for (variables, authorization) in [
        (
            &[("QPIPE_REMOTE_USER", "me"), ("QPIPE_REMOTE_PASSWORD", "geheim")][..],
            "Basic bWU6Z2VoZWlt",
        ),
        (&[("QPIPE_REMOTE_TOKEN", "geheim")], "Bearer geheim"),
    ] {
        let server = Server::start(authorization, true);
        let url = format!("http://{}/", server.address);
        let one = Machine::new(&spec(&url, variables));
        let record = one.result(1, &[("out", b"one")]);
        one.push(&record).unwrap();
        let two = Machine::new(&spec(&url, variables));
        assert_eq!(two.pull(&record.key.digest()), Some(record.clone()));
        let stranger = Machine::new(&spec(&url, &[("QPIPE_REMOTE_TOKEN", "falsch")]));
        assert_eq!(stranger.pull(&record.key.digest()), None);
        let warnings = stranger.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("(401 Unauthorized)"), "{warnings:?}");
        assert!(!warnings[0].contains("falsch"), "{warnings:?}");
    }
}

#[test]
fn a_plain_server_is_read_even_if_it_knows_no_ranges() {
    let server = Server::start("", false);
    let url = format!("http://{}/x", server.address);
    let one = Machine::new(&spec(&url, &[]));
    let content = super::machine::noise(3 << 20);
    let record = one.result(1, &[("out", &content)]);
    one.push(&record).unwrap();
    server.asked.lock().unwrap().clear();
    let mut reading = spec(&url, &[]);
    reading.mode = RemoteMode::ReadOnly;
    let two = Machine::new(&reading);
    let partial = two.cache.place("remote/partial");
    std::fs::create_dir_all(&partial).unwrap();
    let name = record.outputs["out"].digest.hex();
    std::fs::write(partial.join(name), &content[..1 << 20]).unwrap();
    two.pull(&record.key.digest()).unwrap();
    assert!(two.read(&record, "out") == content);
    let asked = server.asked.lock().unwrap();
    assert!(asked.contains(&"GET bytes=1048576-".to_owned()), "{asked:?}");
    assert!(asked.iter().all(|line| line.starts_with("GET") || line.starts_with("HEAD")));
}

#[test]
fn a_service_that_refuses_instead_of_missing_is_used_all_the_same() {
    // S3 does so where the bucket may not be listed.
    let rules = Rules { authorization: "", ranges: true, missing: "403 Forbidden" };
    let url = format!("http://{}/x", Server::with(rules).address);
    let (one, two) = (Machine::new(&spec(&url, &[])), Machine::new(&spec(&url, &[])));
    let record = one.result(1, &[("out", &super::machine::noise(9000))]);
    let key = record.key.digest();
    for _ in 0..2 {
        assert_eq!(one.pull(&qpipe::cache::Digest::of(b"other")), None);
    }
    assert_eq!(one.warnings().len(), 1, "told once");
    assert_eq!(one.push(&record).map(|pushed| pushed.objects), Some(1));
    assert_eq!(two.pull(&key), Some(record));
    assert_eq!((two.warnings(), two.remote.is_off()), (vec![], false));
}

#[test]
fn an_error_page_without_end_is_not_read() {
    let rules = Rules { authorization: "", ranges: true, missing: ENDLESS };
    let url = format!("http://{}/x", Server::with(rules).address);
    let one = Machine::new(&spec(&url, &[]));
    assert_eq!(one.pull(&qpipe::cache::Digest::of(b"key")), None);
    let sent = SENT.load(Ordering::SeqCst);
    assert!(sent < 256 << 20, "{sent} bytes were read");
}
