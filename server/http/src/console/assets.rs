//! The stylesheet, the script and the icon, which are part of the program. Their addresses change with what is in them, so that browsers may
//! keep them.

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::page::{ROOT, Refusal, Reply};

/// A file of the console.
pub(super) struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    hash: u64,
}

pub(super) static STYLE: Asset = Asset::new(
    "console.css",
    "text/css; charset=utf-8",
    include_str!("assets/console.css"),
);
pub(super) static SCRIPT: Asset = Asset::new(
    "console.js",
    "text/javascript; charset=utf-8",
    include_str!("assets/console.js"),
);
pub(super) static ICON: Asset = Asset::new("icon.svg", "image/svg+xml", include_str!("assets/icon.svg"));

impl Asset {
    const fn new(name: &'static str, kind: &'static str, text: &'static str) -> Self {
        let hash = fnv(text.as_bytes());
        Self { name, kind, text, hash }
    }

    /// Where it is.
    pub(super) fn address(&self) -> String {
        format!("{ROOT}/assets/{}?{:016x}", self.name, self.hash)
    }
}

/// FNV-1a: whoever changes a file changes its address.
const fn fnv(bytes: &[u8]) -> u64 {
    let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// Anybody may have them: there is nothing in them.
pub(super) async fn serve(Path(name): Path<String>) -> Reply {
    let known = [&STYLE, &SCRIPT, &ICON].into_iter().find(|asset| asset.name == name);
    let asset = known.ok_or_else(|| Refusal::not_found("There is no such file."))?;
    let headers = [
        (CONTENT_TYPE, asset.kind),
        (CACHE_CONTROL, "public, max-age=604800, immutable"),
    ];
    let response: Response = (headers, asset.text).into_response();
    Ok(response)
}
