//! What is in `docs/deploy` is for this broker: each setting, flag, port, path and endpoint that its files name is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use headwater_server::{Config, config::Knob};
use regex::Regex;

const DATA: &str = "/var/lib/headwater";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(name: &str) -> String {
    let path = root().join("docs/deploy").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file, by its path below `docs/deploy`.
fn files() -> BTreeMap<String, String> {
    fn below(directory: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                below(&path, &format!("{name}/"), files);
            } else {
                files.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    below(&root().join("docs/deploy"), "", &mut files);
    assert!(files.len() > 10, "{:?}", files.keys());
    files
}

fn server() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-server"));
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEADWATER_")) {
        command.env_remove(variable);
    }
    command
}

/// What the broker makes of an environment: the value of each key.
fn in_force(environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let output = server().arg("--print-config").envs(environment).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && stderr.is_empty(),
        "{environment:#?}\n{stderr}"
    );
    let (mut section, mut values) = (String::new(), BTreeMap::new());
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let value = value.split("  # from ").next().unwrap().trim_matches('"');
            values.insert(format!("{section}.{key}"), value.to_owned());
        }
    }
    values
}

/// `KEY: value` lines of a mapping of YAML, below a line and further in than it.
fn mapping(text: &str, head: &str) -> BTreeMap<String, String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = text.lines().skip_while(|line| *line != head);
    let outer = indent(lines.next().unwrap_or_else(|| panic!("no line {head:?}")));
    let inner = lines.take_while(|line| line.is_empty() || indent(line) > outer);
    let pairs = inner.filter_map(|line| line.trim().split_once(": "));
    let pairs = pairs.filter(|(key, _)| key.starts_with("HEADWATER_"));
    pairs
        .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

#[test]
fn every_variable_flag_and_endpoint_that_a_file_names_is_there() {
    let mut variables: BTreeSet<String> = Config::KNOBS.iter().map(Knob::variable).collect();
    // Those of the command line, and the pattern that stands for all.
    variables.extend(["HEADWATER_CONFIG", "HEADWATER_SERVER", "HEADWATER_SECTION_KEY"].map(str::to_owned));
    let keys: BTreeSet<String> = Config::KNOBS.iter().map(Knob::name).collect();
    let sections: Vec<&str> = Config::SECTIONS.iter().map(|(name, _)| *name).collect();
    let key = Regex::new(&format!(r"\b(?:{})\.[a-z]+(?:_[a-z]+)+\b", sections.join("|"))).unwrap();
    let variable = Regex::new(r"\bHEADWATER_[A-Z_]+\b").unwrap();
    let called = Regex::new(r"headwater-server((?: [^\n`;|&#]+)?)").unwrap();
    let endpoint = Regex::new(r"(?m)(?:path: |9644)(/[a-z]+)$").unwrap();
    let routes = std::fs::read_to_string(root().join("server/src/admin_http.rs")).unwrap();
    let mut flags: BTreeMap<String, String> = BTreeMap::new();
    let mut help = |command: &str| {
        let arguments: Vec<&str> = command.split(' ').filter(|word| !word.is_empty()).collect();
        let text = flags.entry(command.to_owned()).or_insert_with(|| {
            let output = server().args(arguments).arg("--help").output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        });
        text.clone()
    };
    let (mut calls, mut endpoints) = (0, 0);
    for (file, text) in files() {
        for name in variable.find_iter(&text) {
            assert!(
                variables.contains(name.as_str()),
                "{file}: nothing reads {}",
                name.as_str()
            );
        }
        for name in key.find_iter(&text) {
            assert!(keys.contains(name.as_str()), "{file}: there is no {}", name.as_str());
        }
        for path in endpoint.captures_iter(&text) {
            endpoints += 1;
            let route = format!(".route(\"{}\"", &path[1]);
            assert!(routes.contains(&route), "{file}: there is no {}", &path[1]);
        }
        // Commands within arrays of JSON too.
        let text = text.replace("\", \"", " ").replace("--package headwater-server", "");
        for call in called.captures_iter(&text) {
            let words: Vec<&str> = call[1].split_whitespace().collect();
            let command = words
                .first()
                .filter(|word| word.chars().all(|letter| letter.is_ascii_lowercase()));
            let command = command.filter(|word| ["check", "init", "ready", "man", "completions"].contains(word));
            let text = help(command.unwrap_or(&""));
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                calls += 1;
                let flag = flag.trim_matches(|letter: char| !letter.is_alphanumeric() && letter != '-');
                let flag = flag.split('=').next().unwrap();
                assert!(
                    text.contains(flag),
                    "{file}: headwater-server {command:?} has no {flag}"
                );
            }
        }
    }
    assert!(calls > 5 && endpoints > 3, "they are looked at: {calls}, {endpoints}");
}

#[test]
fn the_brokers_of_the_compose_file_are_one_cluster_whose_ports_are_published() {
    let compose = read("compose.yaml");
    let image = read("Containerfile");
    let mut taken = BTreeSet::new();
    for number in 0..3 {
        let mut environment = mapping(&compose, "x-environment: &environment");
        assert!(environment.len() > 3, "{environment:?}");
        let service = format!("  broker-{number}:");
        environment.extend(mapping(&compose, &service));
        // What the image sets besides, and nothing else.
        environment.insert("HEADWATER_LOG_DIRECTORY".to_owned(), DATA.to_owned());
        assert!(image.contains(&format!("HEADWATER_LOG_DIRECTORY={DATA}")));
        let values = in_force(&environment);
        assert_eq!(values["broker.id"], number.to_string());
        let name = format!("broker-{number}");
        assert_eq!(values["broker.advertised_host"], name);
        let member = format!("{number}@{name}:9293");
        assert!(values["cluster.members"].split(',').any(|of| of == member), "{member}");
        let server = environment["HEADWATER_SERVER"]
            .split(',')
            .nth(number)
            .unwrap()
            .to_owned();
        let port = |key: &str| values[key].rsplit(':').next().unwrap().parse::<u16>().unwrap();
        assert_eq!(server, format!("{name}:{}", port("broker.listen")));
        let cores: u16 = values["cores.count"].parse().unwrap();
        let single = ["broker.listen", "kafka.listen", "metrics.listen"].map(|key| (port(key), 1));
        let of_cores = ["broker.core_port_base", "kafka.core_port_base"].map(|key| (port(key), cores));
        for (first, count) in single.into_iter().chain(of_cores) {
            for port in first..first + count {
                assert!(taken.insert(port), "two have port {port}");
            }
            let range = if count == 1 {
                first.to_string()
            } else {
                format!("{first}-{}", first + count - 1)
            };
            let published = format!("      - 127.0.0.1:{range}:{range}\n");
            assert!(compose.contains(&published), "{name} does not publish {range}");
        }
        assert!(
            compose.contains(&format!("      - {name}:{DATA}\n")),
            "the data of {name} is on a volume"
        );
    }
}

#[test]
fn the_pods_are_one_cluster_and_their_probes_ask_the_port_of_metrics() {
    let text = read("kubernetes.yaml");
    let pair = Regex::new(r"- name: (HEADWATER_[A-Z_]+)\n +value: (.*)\n").unwrap();
    let given: BTreeMap<String, String> = pair
        .captures_iter(&text)
        .map(|found| (found[1].to_owned(), found[2].trim_matches('"').to_owned()))
        .collect();
    let ports: BTreeMap<String, u16> = Regex::new(r"- name: ([a-z0-9-]+)\n +containerPort: (\d+)\n")
        .unwrap()
        .captures_iter(&text)
        .map(|found| (found[1].to_owned(), found[2].parse().unwrap()))
        .collect();
    for pod in 0..3 {
        let mut environment = given.clone();
        environment.insert("HEADWATER_BROKER_ID".to_owned(), pod.to_string());
        let host = environment.get_mut("HEADWATER_BROKER_ADVERTISED_HOST").unwrap();
        *host = host
            .replace("$(POD_NAME)", &format!("headwater-{pod}"))
            .replace("$(POD_NAMESPACE)", "default");
        assert_eq!(*host, format!("headwater-{pod}.headwater.default.svc.cluster.local"));
        let values = in_force(&environment);
        let port = |key: &str| values[key].rsplit(':').next().unwrap().parse::<u16>().unwrap();
        for (name, key) in [
            ("native", "broker.listen"),
            ("peers", "cluster.listen"),
            ("kafka", "kafka.listen"),
            ("metrics", "metrics.listen"),
            ("core-0", "broker.core_port_base"),
            ("kafka-core-0", "kafka.core_port_base"),
        ] {
            assert_eq!(ports[name], port(key), "{name}");
        }
        assert!(values["cluster.members"].contains(&format!("{pod}@headwater-{pod}.headwater:{}", ports["peers"])));
        assert_eq!(values["log.directory"], DATA);
        assert!(text.contains(&format!("mountPath: {DATA}\n")));
    }
    for (probe, path) in [("startup", "/health"), ("liveness", "/health"), ("readiness", "/ready")] {
        let block = format!(
            "          {probe}Probe:\n            httpGet:\n              path: {path}\n              port: metrics\n"
        );
        assert!(text.contains(&block), "{probe}");
    }
}

#[test]
fn the_image_listens_where_it_says() {
    let image = read("Containerfile");
    let set = Regex::new(r"\b(HEADWATER_[A-Z_]+)=(\S+)").unwrap();
    let instructions = image.lines().filter(|line| !line.starts_with('#'));
    let instructions = instructions.collect::<Vec<_>>().join("\n");
    let environment: BTreeMap<String, String> = set
        .captures_iter(&instructions)
        .map(|found| (found[1].to_owned(), found[2].to_owned()))
        .collect();
    let values = in_force(&environment);
    let exposed: BTreeSet<u16> = Regex::new(r"(?m)^EXPOSE (.*)$").unwrap().captures(&image).unwrap()[1]
        .split(' ')
        .flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse::<u16>().unwrap()..=last.parse().unwrap()
        })
        .collect();
    for key in [
        "broker.listen",
        "broker.core_port_base",
        "kafka.core_port_base",
        "metrics.listen",
    ] {
        let port = values[key].rsplit(':').next().unwrap().parse().unwrap();
        assert!(exposed.contains(&port), "{key} is {port}");
    }
    assert!(image.contains(&format!("\nVOLUME {DATA}\n")) && values["log.directory"] == DATA);
}

#[test]
fn the_package_has_what_it_names_and_its_configuration_is_one() {
    let manifest = std::fs::read_to_string(root().join("server/Cargo.toml")).unwrap();
    let asset = Regex::new(r#"(?m)^    \["([^"]+)", "([^"]+)", "\d+"\],$"#).unwrap();
    let mut installed = Vec::new();
    for found in asset.captures_iter(&manifest) {
        let (from, to) = (found[1].to_owned(), found[2].to_owned());
        // The rest is made by the programs themselves: see `debian/build`.
        if let Some(file) = from.strip_prefix("../docs/deploy/") {
            installed.push(format!(
                "/{to}{}",
                Path::new(file).file_name().unwrap().to_str().unwrap()
            ));
            read(file);
        }
    }
    for path in [
        "/usr/lib/systemd/system/headwater.service",
        "/etc/headwater/headwater.toml",
    ] {
        assert!(
            installed.iter().any(|file| file == path),
            "{path} is not in {installed:?}"
        );
    }
    let unit = read("headwater.service");
    assert!(unit.contains("\nEnvironment=HEADWATER_CONFIG=/etc/headwater/headwater.toml\n"));
    assert!(unit.contains("\nStateDirectory=headwater\n"));
    let file = root().join("docs/deploy/debian/headwater.toml");
    let values = in_force(&[("HEADWATER_CONFIG".to_owned(), file.to_str().unwrap().to_owned())].into());
    assert_eq!(values["log.directory"], DATA);
    for script in ["postinst", "prerm", "postrm", "build"] {
        let path = root().join("docs/deploy/debian").join(script);
        let shell = if script == "build" { "bash" } else { "sh" };
        assert!(
            Command::new(shell).arg("-n").arg(&path).status().unwrap().success(),
            "{script}"
        );
    }
}

#[test]
fn systemd_takes_the_unit() {
    // The program is found where it was built.
    let unit = read("headwater.service");
    let here = unit.replace(
        "ExecStart=headwater-server",
        concat!("ExecStart=", env!("CARGO_BIN_EXE_headwater-server")),
    );
    assert_ne!(here, unit);
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = temporary.path().join("headwater.service");
    std::fs::write(&file, here).unwrap();
    let Ok(verified) = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&file)
        .output()
    else {
        println!("SKIPPED: systemd-analyze is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    let of_ours: Vec<&str> = said.lines().filter(|line| line.contains("headwater.service")).collect();
    assert!(verified.status.success() && of_ours.is_empty(), "{said}");
}

/// YAML that a stricter reader would refuse: tabs, and keys that stand twice in a mapping.
#[test]
fn the_files_of_yaml_can_be_read() {
    let names = ["compose.yaml", "kubernetes.yaml", "observability/alerts.yaml"];
    for name in names {
        assert!(!read(name).contains('\t'), "{name} has a tab");
    }
    let script = "import sys, yaml\nfor name in sys.argv[1:]:\n    assert all(yaml.safe_load_all(open(name)))\n";
    let paths = names.map(|name| root().join("docs/deploy").join(name));
    let has_yaml = Command::new("python3").args(["-c", "import yaml"]).output();
    if !has_yaml.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: python3 has no module yaml");
        return;
    }
    let output = Command::new("python3")
        .args(["-c", script])
        .args(paths)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_service_and_the_container_have_the_limits_that_the_check_wants() {
    let (unit, container, compose) = (read("headwater.service"), read("Containerfile"), read("compose.yaml"));
    let of_unit = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
    let files: u64 = of_unit("LimitNOFILE=").parse().unwrap();
    let locked: u64 = of_unit("LimitMEMLOCK=").strip_suffix('M').unwrap().parse().unwrap();
    for limit in [
        format!("nofile={files}:{files}"),
        format!("memlock={0}:{0}", locked << 20),
    ] {
        assert!(container.contains(&limit), "no {limit}");
    }
    for limit in [format!("nofile: {files}"), format!("memlock: {}", locked << 20)] {
        assert!(compose.contains(&limit), "no {limit}");
    }
    let limits = format!("ulimit -n {files} && ulimit -l {} && exec \"$0\" \"$@\"", locked << 10);
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let checked = Command::new("bash")
        .args([
            "-c",
            &limits,
            env!("CARGO_BIN_EXE_headwater-server"),
            "check",
            "--output",
            "json",
        ])
        .args(["--data-dir", temporary.path().to_str().unwrap()])
        .output()
        .unwrap();
    let Ok(report) = serde_json::from_slice::<serde_json::Value>(&checked.stdout) else {
        let reason = String::from_utf8_lossy(&checked.stderr);
        println!("SKIPPED: the limits of the service may not be set here: {reason}");
        return;
    };
    let rows = report["items"].as_array().unwrap();
    for item in ["open files", "locked memory"] {
        let row = rows.iter().find(|row| row["name"] == item).unwrap();
        assert_eq!(row["verdict"], "ok", "{row}");
    }
}
