//! A loopback server that implements the hub's resolve API, and misbehaves on request.
#![allow(dead_code)] // each test file uses a part

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pheye_hub::{Hub, Limits, Settings, Token};
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const TOKEN: &str = "hf_verySecretToken";

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Git's blob id.
pub(crate) fn git(bytes: &[u8]) -> String {
    hex(&Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat()))
}

/// The behavior of a server.
#[derive(Default)]
pub(crate) struct Rules {
    /// Small files by `OWNER/NAME/FILE`, which the hub itself serves with git's ETag.
    pub small: HashMap<String, Vec<u8>>,
    /// Large files by `OWNER/NAME/FILE`; the hub redirects to `store`, with their SHA-256 as the name.
    pub large: HashMap<String, Vec<u8>>,
    /// The URL of the store with the large files: `http://host:port`.
    pub store: String,
    /// Contents by path, served unchanged.
    pub contents: HashMap<String, Vec<u8>>,
    /// The numbers of bytes after which the next bodies end.
    pub cuts: Vec<usize>,
    /// The status with which every request is answered.
    pub status: Option<u16>,
    /// The required token.
    pub token: Option<String>,
    /// Whether ranges are ignored.
    pub no_ranges: bool,
    /// Files by `OWNER/NAME/FILE` whose length is not reported.
    pub drips: HashMap<String, Drip>,
}

/// A body that is sent in pieces.
#[derive(Clone)]
pub(crate) struct Drip {
    pub etag: String,
    pub piece: Vec<u8>,
    pub pause: Duration,
    pub times: usize,
}

impl Drip {
    /// Pieces without a pause, under an ETag that is not a checksum.
    pub(crate) fn new(piece: Vec<u8>, times: usize) -> Drip {
        Drip { etag: "\"opaque\"".to_owned(), piece, pause: Duration::ZERO, times }
    }

    fn serve(&self, head: &str, mut stream: TcpStream) {
        let (commit, etag) = (COMMIT, &self.etag);
        let start =
            format!("HTTP/1.1 200 X\r\nX-Repo-Commit: {commit}\r\nETag: {etag}\r\nConnection: close\r\n\r\n");
        let mut sent = stream.write_all(start.as_bytes());
        for _ in 0..if head.starts_with("GET") { self.times } else { 0 } {
            sent = sent.and_then(|()| stream.write_all(&self.piece));
            if sent.is_err() {
                return;
            }
            std::thread::sleep(self.pause);
        }
    }
}

pub(crate) struct Server {
    pub url: String,
    pub rules: Arc<Mutex<Rules>>,
    /// The head of each request.
    pub seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn start(rules: Rules) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (rules, seen) = (Arc::new(Mutex::new(rules)), Arc::new(Mutex::new(Vec::new())));
        let (r, s) = (rules.clone(), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (r, s) = (r.clone(), s.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &r, &s));
            }
        });
        Server { url, rules, seen }
    }

    pub(crate) fn requests(&self, method: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|head| head.starts_with(method)).count()
    }

    pub(crate) fn hub(&self, cache: &std::path::Path) -> Hub {
        hub(&self.url, cache, false)
    }
}

pub(crate) fn hub(url: &str, cache: &std::path::Path, offline: bool) -> Hub {
    limited(url, cache, offline, Limits::default())
}

pub(crate) fn limited(url: &str, cache: &std::path::Path, offline: bool, limits: Limits) -> Hub {
    let token = Token::new(TOKEN).unwrap();
    let settings = Settings { cache: cache.to_owned(), endpoint: url.to_owned(), token, offline, limits };
    let mut hub = Hub::new(settings);
    hub.pause = std::time::Duration::from_millis(1);
    hub
}

fn serve(mut stream: TcpStream, rules: &Mutex<Rules>, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|n| n > 0) && !head.ends_with("\r\n\r\n") {}
    if head.is_empty() {
        return;
    }
    seen.lock().unwrap().push(head.clone());
    let drip = file(&head).and_then(|name| rules.lock().unwrap().drips.get(&name).cloned());
    if let Some(drip) = drip {
        return drip.serve(&head, stream);
    }
    let out = respond(&head, &mut rules.lock().unwrap());
    // The connection is closed after one request.
    let _ = stream.write_all(&out);
}

/// The `OWNER/NAME/FILE` of a request.
fn file(head: &str) -> Option<String> {
    let (repo, rest) = head.split(' ').nth(1)?.strip_prefix('/')?.split_once("/resolve/")?;
    Some(format!("{repo}/{}", rest.split_once('/')?.1))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn respond(head: &str, r: &mut Rules) -> Vec<u8> {
    let path = head.split(' ').nth(1).unwrap().to_owned();
    if let Some(status) = r.status {
        return answer(head, r, status, "", b"no");
    }
    if let Some(body) = r.contents.get(&path).cloned() {
        return answer(head, r, 200, "ETag: \"of-the-store\"\r\n", &body);
    }
    let token = r.token.as_ref().map(|t| format!("Bearer {t}"));
    if token.is_some() && header(head, "authorization") != token.as_deref() {
        return answer(head, r, 401, "X-Error-Code: GatedRepo\r\n", b"");
    }
    let Some((repo, rest)) = path[1..].split_once("/resolve/") else { return answer(head, r, 404, "", b"") };
    let (_, file) = rest.split_once('/').unwrap();
    let (name, commit) = (format!("{repo}/{file}"), format!("X-Repo-Commit: {COMMIT}\r\n"));
    if let Some(body) = r.small.get(&name).cloned() {
        return answer(head, r, 200, &format!("{commit}ETag: W/\"{}\"\r\n", git(&body)), &body);
    }
    if let Some(body) = r.large.get(&name).cloned() {
        let (sum, size) = (sha256(&body), body.len());
        let to = format!("Location: {}/{sum}?signature=private\r\n", r.store);
        let linked = format!("X-Linked-Etag: \"{sum}\"\r\nX-Linked-Size: {size}\r\n");
        return answer(head, r, 302, &[commit, linked, to].concat(), b"");
    }
    let known = r.small.keys().chain(r.large.keys()).any(|name| name.starts_with(&format!("{repo}/")));
    let code = if known { "EntryNotFound" } else { "RepoNotFound" };
    answer(head, r, 404, &format!("X-Error-Code: {code}\r\n"), b"")
}

fn answer(head: &str, r: &mut Rules, status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let range = header(head, "range").filter(|_| !r.no_ranges && status == 200);
    let from = range.map(|range| range["bytes=".len()..].trim_end_matches('-').parse().unwrap());
    let (status, range, body) = match from {
        Some(from) if from < body.len() => {
            let range = format!("Content-Range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
            (206, range, &body[from..])
        }
        Some(_) => (416, String::new(), &[][..]),
        None => (status, String::new(), body),
    };
    let length = body.len();
    let start = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n");
    let mut out = [start.as_str(), &range, headers, "\r\n"].concat().into_bytes();
    if head.starts_with("GET") {
        let cut = if status < 300 && !r.cuts.is_empty() { r.cuts.remove(0) } else { length };
        out.extend(&body[..cut.min(length)]);
    }
    out
}

/// A hub with one small file, and a large one in a store on another port.
pub(crate) fn hub_and_store() -> (Server, Server, Vec<u8>) {
    let large: Vec<u8> = (0..1_000_000u32).flat_map(|i| i.to_le_bytes()).collect();
    let path = format!("/{}?signature=private", sha256(&large));
    let store = Server::start(Rules { contents: [(path, large.clone())].into(), ..Rules::default() });
    let hub = Server::start(Rules {
        small: [("owner/name/config.json".to_owned(), b"{}".to_vec())].into(),
        large: [("owner/name/checkpoint.pt".to_owned(), large.clone())].into(),
        store: store.url.clone(),
        ..Rules::default()
    });
    (hub, store, large)
}
