//! REST: what it stores and shows is what any other client stores and sees, whoever may not do something elsewhere may not do it here,
//! and nobody who behaves badly there takes anything from others.

#![allow(
    clippy::too_many_lines,
    reason = "each has a broker of its own, and shows many things with it"
)]

mod access;
mod bad_input;
mod cluster;
mod console;
mod document;
mod groups;
mod records;
mod tls;

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{LIMIT, Site};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body, if the status is this.
    pub fn with(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{} {}", self.head, self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// Of a problem the code, if the status is this.
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{} {}", self.head, self.text());
        assert!(self.head.contains("application/problem+json"), "{}", self.head);
        let problem = self.json();
        assert!(!problem["next"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty());
        problem["code"].as_str().unwrap().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
    }
}

/// Somebody who speaks HTTP.
#[derive(Clone)]
pub struct Caller {
    pub address: SocketAddr,
    /// Headers of each request.
    headers: String,
}

impl Caller {
    pub fn nobody(site: &Site) -> Caller {
        Caller {
            address: site.http_address(),
            headers: String::new(),
        }
    }

    pub fn user(site: &Site, user: &str, password: &str) -> Caller {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        Caller {
            headers: format!("Authorization: Basic {encoded}\r\n"),
            ..Caller::nobody(site)
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", b"").await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, "", b"").await
    }

    /// With a body of JSON.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.ask(method, path, "Content-Type: application/json\r\n", body.as_bytes())
            .await
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = self.begin(method, path, headers, body).await;
        let mut answer = Vec::new();
        let read = timeout(LIMIT, stream.read_to_end(&mut answer))
            .await
            .expect("it answers");
        assert!(read.is_ok() || !answer.is_empty(), "{method} {path}: {read:?}");
        answered(&answer)
    }

    /// Sends a request whose answer is read elsewhere.
    pub async fn begin(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let (own, length) = (&self.headers, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\n{own}{headers}\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // Who is refused early may not read all of it.
        let _ = stream.write_all(body).await;
        stream
    }
}

fn answered(answer: &[u8]) -> Answer {
    let end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .expect("a head");
    let head = str::from_utf8(&answer[..end]).unwrap().to_owned();
    let mut body = answer[end + 4..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Answer {
        status: head[9..12].parse().unwrap(),
        head,
        body,
    }
}

/// What the chunks hold that have come as a whole.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
        let length = usize::from_str_radix(str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = rest.get(end + 2..end + 2 + length) else {
            break;
        };
        body.extend_from_slice(chunk);
        rest = rest.get(end + 4 + length..).unwrap_or_default();
    }
    body
}

/// A stream of events.
pub struct Events {
    stream: TcpStream,
    came: Vec<u8>,
}

impl Events {
    pub async fn listen(caller: &Caller, path: &str, headers: &str) -> Events {
        let headers = format!("Accept: text/event-stream\r\n{headers}");
        let stream = caller.begin("GET", path, &headers, b"").await;
        Events {
            stream,
            came: Vec::new(),
        }
    }

    /// Waits until it has begun, and has its place.
    pub async fn begun(&mut self) {
        let wait = async {
            while !String::from_utf8_lossy(&self.came).contains("retry:") {
                let mut piece = [0; 1 << 10];
                let length = self.stream.read(&mut piece).await.unwrap();
                assert!(length > 0, "{}", String::from_utf8_lossy(&self.came));
                self.came.extend_from_slice(&piece[..length]);
            }
        };
        timeout(LIMIT, wait).await.expect("it begins");
    }

    /// Waits until so many records have come, and returns each with its id; fewer if the stream ends.
    pub async fn records(&mut self, count: usize) -> Vec<(u64, Value)> {
        let wait = async {
            loop {
                let records = self.parsed();
                if records.len() >= count {
                    return records;
                }
                let mut piece = vec![0; 16 << 10];
                match self.stream.read(&mut piece).await {
                    Ok(length) if length > 0 => self.came.extend_from_slice(&piece[..length]),
                    _ => return records,
                }
            }
        };
        timeout(LIMIT, wait).await.expect("they come")
    }

    fn parsed(&self) -> Vec<(u64, Value)> {
        if !self.came.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            return Vec::new();
        }
        let answer = answered(&self.came);
        assert_eq!(answer.status, 200, "{}", answer.head);
        let text = answer.text();
        let whole = &text[..text.rfind("\n\n").map_or(0, |end| end + 2)];
        let events = whole.split("\n\n").filter_map(|event| event.strip_prefix("id: "));
        let read = events.map(|event| {
            let (id, data) = event.split_once("\ndata: ").unwrap();
            let data = data.replace("\ndata: ", "\n");
            (id.parse().unwrap(), serde_json::from_str(&data).unwrap())
        });
        read.collect()
    }
}

/// A site with REST.
pub fn site() -> Site {
    Site::new()
        .cores(2)
        .with_http()
        .set("groups.initial_rebalance_delay_ms", "0")
}

/// Asks again until the answer is as it should be.
pub async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, wait).await.expect("it comes")
}
