//! REST over HTTPS, at a broker whose other ports have TLS too.

use serde_json::json;
use tokio::io::AsyncReadExt as _;

use super::Caller;
use crate::support::{Authority, Site, own_ip, run, tunnel};

#[test]
fn passwords_and_records_pass_encrypted_to_rest_and_from_there_to_brokers() {
    run(async {
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let ip = own_ip();
        let authority = Authority::new(&temporary.path().join("ca"), "Test CA");
        let shown = authority.issue("broker", &[&ip.to_string()]);
        let site = Site::at(&temporary.path().join("data"))
            .on(ip)
            .with_http()
            .set("broker.tls_certificate", shown.certificate())
            .set("broker.tls_key", shown.key())
            .set("http.tls_certificate", shown.certificate())
            .set("http.tls_key", shown.key())
            .set("http.broker_ca", authority.file().to_str().unwrap());
        let broker = site.start();
        let plain = Caller::nobody(&site);
        let caller = Caller {
            address: tunnel(site.http_address(), authority.client(None)).await,
            ..plain.clone()
        };
        caller.send("POST", "/v1/topics", &json!({"name": "t"})).await.with(201);
        let batch = json!({"records": [{"value": "v"}]});
        caller.send("POST", "/v1/topics/t/records", &batch).await.with(200);
        let read = caller.get("/v1/topics/t/partitions/0/records").await.with(200);
        assert_eq!(read["records"][0]["value"], json!({"text": "v"}));
        // Whoever speaks plainly is told nothing but that this is no TLS.
        let mut stream = plain.begin("GET", "/v1/topics", "", b"").await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        broker.stop();
    });
}
