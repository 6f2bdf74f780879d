//! What holds for every answer, whether there is a broker or not: here there is none.

use std::time::Duration;

use headwater_client::SaslMechanism;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{Limits, Service, Settings};

/// Every kind of path, with one that there is not.
const PATHS: [&str; 16] = [
    "/console",
    "/console/",
    "/console/topics",
    "/console/topics/orders",
    "/console/topics/orders/records",
    "/console/topics/orders/record?partition=0&offset=0",
    "/console/topics/orders/tail",
    "/console/groups",
    "/console/group?id=a",
    "/console/group/lag?id=a",
    "/console/group/reset?id=a",
    "/console/brokers",
    "/console/charts",
    "/console/figures",
    "/console/security",
    "/console/%3Cscript%3Ealert(1)%3C/script%3E",
];

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// A service whose broker nobody has started.
async fn service(writes: bool, mechanism: Option<SaslMechanism>) -> String {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bootstrap = vec![nobody.local_addr().unwrap().to_string()];
    drop(nobody);
    let settings = Settings {
        cluster_id: "test".to_owned(),
        bootstrap,
        mechanism,
        broker_tls: None,
        is_local: true,
        allowed_origins: vec!["https://dash.example.com".to_owned()],
        console_writes: writes,
        metrics: None,
        limits: Limits::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(Service::new(settings).serve(listener, std::future::pending()));
    address
}

async fn ask(address: &str, request: String) -> Answer {
    let answer = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

async fn get(address: &str, path: &str) -> Answer {
    ask(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
    )
    .await
}

async fn post(address: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let kind = "application/x-www-form-urlencoded";
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
    );
    ask(address, format!("{head}{headers}\r\n{body}")).await
}

fn check_headers(answer: &Answer, path: &str) {
    let policy = answer
        .header("content-security-policy")
        .unwrap_or_else(|| panic!("{path}: {}", answer.head));
    for rule in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "script-src 'self'",
    ] {
        assert!(policy.contains(rule), "{path}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{path}: {policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{path}");
    }
    assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
    assert!(
        !answer.body.contains("<script>") && !answer.body.contains(" style="),
        "{path}: {}",
        answer.body
    );
}

#[tokio::test]
async fn every_answer_tells_a_browser_what_it_may_not_do_also_where_there_is_no_broker() {
    let address = service(false, None).await;
    let at = address.as_str();
    let answers = PATHS.map(|path| async move { (path, get(at, path).await) });
    for (path, answer) in futures::future::join_all(answers).await {
        check_headers(&answer, path);
        assert_ne!(answer.status, 200, "{path}");
        if answer.status != 308 {
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
            assert!(answer.body.contains("<h1>"), "{path}: {}", answer.body);
        }
    }
    let wrong = post(&address, "/console/topics", "", "").await;
    assert_eq!(wrong.status, 405);
    check_headers(&wrong, "a method that is not there");
}

#[tokio::test]
async fn style_and_script_are_there_for_everybody_and_may_be_kept() {
    let address = service(false, Some(SaslMechanism::ScramSha256)).await;
    for asset in [&super::assets::STYLE, &super::assets::SCRIPT, &super::assets::ICON] {
        let answer = get(&address, &asset.address()).await;
        assert_eq!(answer.status, 200);
        check_headers(
            &Answer {
                body: String::new(),
                ..answer
            },
            "an asset",
        );
    }
    assert_eq!(get(&address, "/console/assets/..%2f..%2fmod.rs").await.status, 404);
    // Everything else asks who it is.
    let asked = get(&address, "/console").await;
    assert_eq!((asked.status, asked.header("www-authenticate").is_some()), (401, true));
    check_headers(&asked, "a question");
}

#[tokio::test]
async fn a_form_is_taken_from_pages_of_this_address_alone_and_only_where_writing_is_allowed() {
    let path = "/console/group/reset";
    let body = "id=g&offsets=t+0+5+1";
    let (shows, writes) = (service(false, None).await, service(true, None).await);
    for foreign in [
        "",
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        // May use REST, and is no page of the console.
        "Origin: https://dash.example.com\r\n",
    ] {
        let refused = post(&writes, path, foreign, body).await;
        assert_eq!(refused.status, 403, "{foreign}: {}", refused.body);
    }
    let own = "Sec-Fetch-Site: same-origin\r\n";
    // There is no broker, and so no client to ask with: nothing but that is wrong with it.
    assert!(post(&writes, path, own, body).await.status >= 500);
    let refused = post(&shows, path, own, body).await;
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("http.console_writes"), "{}", refused.body);
}

/// What is not escaped would have to be made without `maud`, or by its way around that.
#[test]
fn nothing_goes_round_the_escaping() {
    let sources = [
        include_str!("overview.rs"),
        include_str!("topics.rs"),
        include_str!("groups.rs"),
        include_str!("reset.rs"),
        include_str!("brokers.rs"),
        include_str!("charts.rs"),
        include_str!("security.rs"),
        include_str!("records/mod.rs"),
        include_str!("page.rs"),
    ];
    let way_round = concat!("Pre", "Escaped");
    assert!(sources.iter().all(|source| !source.contains(way_round)));
    let script = include_str!("assets/console.js");
    for sink in [
        "innerHTML",
        "insertAdjacentHTML",
        "outerHTML",
        "document.write",
        "eval(",
    ] {
        assert!(!script.contains(sink), "{sink}");
    }
}
