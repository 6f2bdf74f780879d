//! TCP: queues before a connection is accepted, buffers of a connection, ports for those who connect.
//!
//! `net.core.rmem_max` and `wmem_max` are left out: they bound buffers that a program sets, and neither the broker nor the
//! client sets any, so that the kernel grows them up to `tcp_rmem` and `tcp_wmem`.

pub(super) mod open;
mod tls;

use super::facts::{Facts, NetworkFacts};
use super::finding::Finding;
use super::root::{Root, rounded};
use crate::config::Config;
use crate::session::listener::BACKLOG;

pub(super) use self::tls::tls;

/// What a connection needs in flight at 10 Gbit/s over 3 ms, or 1 Gbit/s over 30 ms.
const BUFFER_BYTES_MIN: u64 = 4 << 20;

impl NetworkFacts {
    pub(super) fn read(root: &Root) -> Self {
        Self {
            somaxconn: root.number("proc/sys/net/core/somaxconn"),
            syn_backlog: root.number("proc/sys/net/ipv4/tcp_max_syn_backlog"),
            receive: numbers(root, "proc/sys/net/ipv4/tcp_rmem"),
            send: numbers(root, "proc/sys/net/ipv4/tcp_wmem"),
            local_ports: numbers(root, "proc/sys/net/ipv4/ip_local_port_range"),
        }
    }
}

fn numbers<const N: usize>(root: &Root, path: &str) -> Option<[u64; N]> {
    let text = root.text(path)?;
    let numbers: Option<Vec<u64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    numbers?.try_into().ok()
}

pub(super) fn accept_queue(facts: &Facts, _: &Config) -> Finding {
    at_least(
        "net.core.somaxconn",
        facts.network.somaxconn,
        BACKLOG.unsigned_abs().into(),
        "The kernel cuts the queue of connections that wait to be accepted; when many clients connect at once, some wait \
         a second or more",
    )
}

pub(super) fn syn_queue(facts: &Facts, _: &Config) -> Finding {
    at_least(
        "net.ipv4.tcp_max_syn_backlog",
        facts.network.syn_backlog,
        BACKLOG.unsigned_abs().into(),
        "When many clients connect at once, the kernel drops their first packets and they wait a second or more",
    )
}

fn at_least(key: &str, value: Option<u64>, min: u64, why: &str) -> Finding {
    let recommended = format!("{min} or more");
    match value {
        None => Finding::unseen("not visible", recommended),
        Some(value) if value >= min => Finding::new(value.to_string(), recommended),
        Some(value) => Finding::new(value.to_string(), recommended)
            .better(why)
            .command(format!("sysctl -w {key}={min}")),
    }
}

pub(super) fn receive_buffers(facts: &Facts, _: &Config) -> Finding {
    buffers("net.ipv4.tcp_rmem", facts.network.receive, "producers")
}

pub(super) fn send_buffers(facts: &Facts, _: &Config) -> Finding {
    buffers("net.ipv4.tcp_wmem", facts.network.send, "consumers")
}

fn buffers(key: &str, value: Option<[u64; 3]>, who: &str) -> Finding {
    let recommended = format!("up to {} or more", rounded(BUFFER_BYTES_MIN));
    let Some([min, default, max]) = value else {
        return Finding::unseen("not visible", recommended);
    };
    let finding = Finding::new(format!("up to {}", rounded(max)), recommended);
    if max >= BUFFER_BYTES_MIN {
        return finding;
    }
    finding
        .better(format!(
            "Fast {who} behind a link with some delay wait for the window of TCP"
        ))
        .command(format!("sysctl -w {key}=\"{min} {default} {BUFFER_BYTES_MIN}\""))
}

pub(super) fn local_ports(facts: &Facts, config: &Config) -> Finding {
    // A connection that was closed keeps its port for a minute: leave room for as many again.
    let needed = u64::from(config.limits.connections_max).saturating_mul(2).min(64_512);
    let recommended = format!("{needed} or more, on machines with clients");
    let Some([first, last]) = facts.network.local_ports else {
        return Finding::unseen("not visible", recommended);
    };
    let count = (last + 1).saturating_sub(first);
    let finding = Finding::new(format!("{count} ({first} to {last})"), recommended);
    if count >= needed {
        return finding;
    }
    finding
        .better(
            "A load generator on this machine cannot open as many connections to one port as limits.connections_max allows",
        )
        .command("sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"")
}
