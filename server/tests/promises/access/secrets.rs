//! No secret shows anywhere.

use std::process::Command;

use headwater_kafka::{
    ApiKey,
    messages::{DescribeConfigsRequest, DescribeConfigsResponse, describe_configs_request::DescribeConfigsResource},
};

use super::{ADMIN, Guarded, MARKER, password_of, sasl::enter, site};
use crate::{kafka::wire::Wire, support::run};

#[test]
fn a_password_is_neither_logged_nor_printed_nor_kept_nor_told() {
    run(async {
        let guarded = Guarded::start(site().with_metrics().set("logging.filter", "trace")).await;
        let site = &guarded.site;
        // Also one that is wrong, and one that is given in the place of where it is.
        let mut wire = Wire::of(site).await;
        enter(&mut wire, "PLAIN", ADMIN, &format!("{MARKER}-wrong")).await;
        let mut wire = Wire::of(site).await;
        enter(&mut wire, "PLAIN", ADMIN, &password_of(ADMIN)).await;
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: 4,
                resource_name: "0".into(),
                configuration_keys: None,
            }],
            include_synonyms: true,
            include_documentation: true,
        };
        let described: DescribeConfigsResponse<'_> = wire.ask(ApiKey::DescribeConfigs, 4, &request).await;
        let described = format!("{described:?}");
        assert!(described.contains("security.admin_password") && !described.contains(MARKER));
        let broker = guarded.admin.describe_broker().await.unwrap();
        assert!(!format!("{broker:?}").contains(MARKER));
        assert!(!format!("{:?}", guarded.admin.users().await.unwrap()).contains(MARKER));
        let (_, metrics) = site.get("/metrics").await;
        assert!(!metrics.contains(MARKER));
        let secret = site.directory().with_file_name("admin-secret");
        let ran = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-server"));
            let ran = command
                .args(arguments)
                .env("MARKER", password_of(ADMIN))
                .output()
                .unwrap();
            let told = [ran.stdout, ran.stderr].concat();
            String::from_utf8_lossy(&told).into_owned()
        };
        let set = format!("security.admin_password=file:{}", secret.display());
        let printed = ran(&["--print-config", "--set", &set]);
        assert!(
            printed.contains("admin-secret") && !printed.contains(MARKER),
            "{printed}"
        );
        let printed = ran(&["--print-config", "--set", "security.admin_password=env:MARKER"]);
        assert!(printed.contains("env:MARKER") && !printed.contains(MARKER), "{printed}");
        let refused = ran(&["--print-config", "--set", &format!("security.admin_password={MARKER}")]);
        assert!(
            refused.contains("security.admin_password") && !refused.contains(MARKER),
            "{refused}"
        );
        // Nor is it in the data directory.
        let mut files = vec![site.directory().to_owned()];
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let is_in_it = bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes());
            assert!(!is_in_it, "a password is in {}", path.display());
        }
        guarded.stop();
    });
}
