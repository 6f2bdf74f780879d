//! Which certificate a client is shown: one for the name that it asks for, a wildcard that covers it, or the first.

use std::{collections::BTreeMap, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::certificate::Look;

/// The certificates of a port; clients that ask for no name, as those that connect to an address, get the first.
#[derive(Debug)]
pub(super) struct ByName {
    first: Arc<CertifiedKey>,
    /// By name; a wildcard by what follows its asterisk, dot included.
    names: BTreeMap<String, Arc<CertifiedKey>>,
}

impl ByName {
    pub(super) fn new(certificates: &[(Arc<CertifiedKey>, Look)]) -> Option<ByName> {
        let (first, _) = certificates.first()?;
        let mut names = BTreeMap::new();
        for (certified, look) in certificates {
            for name in &look.names {
                let name = name.strip_prefix('*').unwrap_or(name);
                names.entry(name.to_owned()).or_insert_with(|| Arc::clone(certified));
            }
        }
        let first = Arc::clone(first);
        Some(ByName { first, names })
    }

    fn of(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else {
            return &self.first;
        };
        // A wildcard covers one part of a name.
        let wildcard = name.find('.').map(|dot| &name[dot..]);
        let found = self.names.get(&name);
        found.or_else(|| self.names.get(wildcard?)).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.of(hello.server_name())))
    }
}
