//! The description and what is served are the same, also where no broker answers.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use super::PATHS;
use crate::{Limits, Service, Settings};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// A service whose brokers are not there. It ends when the sender is dropped.
async fn alone(limits: Limits, origins: &[&str]) -> (SocketAddr, oneshot::Sender<()>) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings {
        cluster_id: "c".to_owned(),
        bootstrap: vec![free.local_addr().unwrap().to_string()],
        mechanism: None,
        broker_tls: None,
        is_local: true,
        allowed_origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
        console_writes: false,
        metrics: None,
        limits,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move {
        let _ = stopped.await;
    };
    tokio::spawn(Service::new(settings).serve(listener, stopped));
    (address, stop)
}

/// Sends a request, and returns the status, the head and the body.
async fn ask(address: SocketAddr, request: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn what_is_described_is_what_is_served_and_every_error_is_a_problem() {
    let (address, _stop) = alone(Limits::default(), &[]).await;
    let (status, _, description) = ask(address, "GET /openapi.json", "", "").await;
    assert_eq!(status, 200);
    let description: Value = serde_json::from_str(&description).unwrap();
    let described = description["paths"].as_object().unwrap();
    assert!(
        described.keys().all(|path| PATHS.contains(&path.as_str())),
        "{described:?}"
    );
    let mut ids = std::collections::BTreeSet::new();
    for path in PATHS {
        let concrete = path
            .replace("{partition}", "0")
            .replace("{offset}", "0")
            .replace("{broker}", "0");
        let concrete = concrete.replace(['{', '}'], "");
        if !path.starts_with("/v1") && !path.starts_with("/kafka") {
            assert_eq!(ask(address, &format!("GET {path}"), "", "").await.0, 200, "{path}");
            continue;
        }
        for method in METHODS {
            let request = format!("{} {concrete}", method.to_ascii_uppercase());
            let (status, head, body) = ask(address, &request, "", "").await;
            let operation = &described[*path][method];
            assert_eq!(status == 405, operation.is_null(), "{request}: {head}\n{body}");
            if status != 200 {
                assert!(head.contains("application/problem+json"), "{request}: {head}");
                let problem: Value = serde_json::from_str(&body).unwrap();
                assert_eq!(problem["status"], status, "{request}: {body}");
                assert!(!problem["next"].as_str().unwrap().is_empty() && problem["code"].is_string());
            }
            if let Some(id) = operation["operationId"].as_str() {
                assert!(ids.insert(id.to_owned()), "{id} is there twice");
                assert!(operation["responses"]["default"].is_object());
            }
        }
    }
    // A name that leads here and is not this machine's: DNS rebinding.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /v1/topics HTTP/1.1\r\nHost: evil.example.com\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let (status, _, body) = ask(address, "GET /v1/../etc/passwd", "", "").await;
    assert_eq!(status, 404, "{body}");
    let (status, _, body) = ask(address, "GET /v1/topics", "", "").await;
    assert!(status == 503 && body.contains("NETWORK_EXCEPTION"), "{status} {body}");
}

#[tokio::test]
async fn web_pages_of_others_may_do_nothing_unless_they_are_named() {
    let allowed = "https://dash.example.com";
    let (address, _stop) = alone(Limits::default(), &[allowed]).await;
    let json = "Content-Type: application/json\r\n";
    let from = |origin: &str| format!("Origin: {origin}\r\n{json}");
    for (origin, status) in [
        (from("https://evil.example.com"), 403),
        (from("null"), 403),
        (from(&format!("http://{address}.evil.example.com")), 403),
        (format!("Sec-Fetch-Site: cross-site\r\n{json}"), 403),
        (from(&format!("http://{address}")), 503),
        (from(allowed), 503),
        (json.to_owned(), 503),
    ] {
        let answer = ask(address, "POST /v1/topics", &origin, r#"{"name":"t"}"#).await;
        assert_eq!(answer.0, status, "{origin}: {}", answer.2);
        assert_eq!(
            answer.1.contains("access-control-allow-origin"),
            origin.contains(allowed)
        );
        assert!(!answer.1.contains("allow-credentials"));
    }
    let preflight = format!("Origin: {allowed}\r\nAccess-Control-Request-Method: POST\r\n");
    let (status, head, _) = ask(address, "OPTIONS /v1/topics", &preflight, "").await;
    assert!(status == 204 && head.contains("access-control-allow-methods"), "{head}");
    let preflight = preflight.replace("dash", "evil");
    let (status, head, _) = ask(address, "OPTIONS /v1/topics", &preflight, "").await;
    assert!(status == 405 && !head.contains("access-control"), "{head}");
}

#[tokio::test]
async fn bodies_requests_and_connections_are_bounded() {
    let limits = Limits {
        body_bytes: 1 << 10,
        memory_bytes: 1 << 20,
        connections: 3,
        requests: 1,
        request_time: std::time::Duration::from_millis(300),
        ..Limits::default()
    };
    let (address, _stop) = alone(limits, &[]).await;
    let raw = "Content-Type: application/octet-stream\r\n";
    let long = "x".repeat((1 << 10) + 1);
    // Whoever asks is known first: a stranger's body is not read. Here nobody answers who it is.
    let (status, _, body) = ask(address, "POST /v1/topics/t/records", raw, &long).await;
    assert!(matches!(status, 413 | 503), "{body}");

    // A connection that says nothing has a place, and one more than there are is closed at once.
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let mut further = TcpStream::connect(address).await.unwrap();
    assert_eq!(further.read(&mut [0]).await.unwrap_or(0), 0);
    drop(silent);
}
