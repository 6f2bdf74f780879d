//! How many requests a second REST stores, beside a bare handler that reads the same bodies and does nothing with them:
//!
//! ```sh
//! headwater-server --data-dir ./data --set http.listen=127.0.0.1:9680 &
//! cargo run --release -p headwater-http --example produce -- 127.0.0.1:9680
//! ```
//! 100 records of 1 KiB a request, 16 connections, the two in turns; and what one stream of events gives out.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, routing::post};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const CONNECTIONS: usize = 16;
const RECORDS: usize = 100;
const VALUE_LEN: usize = 1024;
const TURNS: usize = 3;
const TURN: Duration = Duration::from_secs(5);
const TOPIC: &str = "rest-bench";

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let rest: SocketAddr = std::env::args()
        .nth(1)
        .ok_or("where is REST? such as 127.0.0.1:9680")?
        .parse()?;
    let bare = bare()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // One that is there already is as good.
        let _ = ask(rest, "/v1/topics", &format!(r#"{{"name":"{TOPIC}","partitions":4}}"#)).await?;
        let record = format!(r#"{{"value":"{}"}}"#, "x".repeat(VALUE_LEN));
        let json = format!(r#"{{"records":[{}]}}"#, vec![record; RECORDS].join(","));
        let path = format!("/v1/topics/{TOPIC}/records");
        for _ in 0..TURNS {
            let floor = turn(bare, &path, &json).await?;
            let stored = turn(rest, &path, &json).await?;
            println!(
                "bare {floor:.0} requests/s, REST {stored:.0} requests/s ({:.2} of it)",
                stored / floor
            );
        }
        let mega_bytes = listen(rest).await?;
        println!("one stream of events: {mega_bytes:.0} MB/s");
        Ok(())
    })
}

/// A handler that reads bodies, on a thread of its own, as REST has.
fn bare() -> Result<SocketAddr, Failure> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let read = async |body: Bytes| body.len().to_string();
            let layer = axum::extract::DefaultBodyLimit::disable();
            let router = Router::new()
                .route("/v1/topics/{topic}/records", post(read))
                .layer(layer);
            axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
        })
    });
    Ok(address)
}

/// Requests a second that are answered with 200 within a turn.
async fn turn(address: SocketAddr, path: &str, json: &str) -> Result<f64, Failure> {
    let request = request(address, path, json);
    let answered = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let connections = (0..CONNECTIONS).map(|_| {
        let (request, answered) = (request.clone(), Arc::clone(&answered));
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            while began.elapsed() < TURN {
                stream.write_all(request.as_bytes()).await?;
                read_answer(&mut stream).await?;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), Failure>(())
        })
    });
    for connection in connections.collect::<Vec<_>>() {
        connection.await??;
    }
    Ok(answered.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}

fn request(address: SocketAddr, path: &str, json: &str) -> String {
    let length = json.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}"
    )
}

async fn ask(address: SocketAddr, path: &str, json: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request(address, path, json).as_bytes()).await?;
    let mut piece = vec![0; 64 << 10];
    let length = stream.read(&mut piece).await?;
    Ok(String::from_utf8_lossy(&piece[..length]).into_owned())
}

/// Reads an answer as a whole, which must be 200.
async fn read_answer(stream: &mut TcpStream) -> Result<(), Failure> {
    let mut answer = Vec::with_capacity(16 << 10);
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the connection ended".into());
        }
        let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            continue;
        };
        let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
        if !text.starts_with("http/1.1 200") {
            return Err(String::from_utf8_lossy(&answer).into_owned().into());
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.ok_or("there is no length")?.trim().parse()?;
        if answer.len() >= head + 4 + length {
            return Ok(());
        }
    }
}

/// Bytes a second of one stream from the first record on, for a turn.
async fn listen(rest: SocketAddr) -> Result<f64, Failure> {
    let mut stream = TcpStream::connect(rest).await?;
    let path = format!("/v1/topics/{TOPIC}/partitions/0/records");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {rest}\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut bytes, mut piece) = (0, vec![0; 256 << 10]);
    let began = Instant::now();
    let mut last = began;
    // Until all there is has come, or the time is up.
    while let Ok(Ok(length)) = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut piece)).await
        && length > 0
        && began.elapsed() < TURN
    {
        bytes += length;
        last = Instant::now();
    }
    Ok(bytes as f64 / 1e6 / last.duration_since(began).as_secs_f64())
}
