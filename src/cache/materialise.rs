//! Making objects present: what is missing or damaged here is fetched from the remote.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Cache, CacheError, Damage, Digest, Fetched, Tree};

impl Cache {
    /// Verifies every object of `tree` and fetches those that are missing or damaged; returns the ones that still
    /// are. `wholes` are the outputs that `tree` may be a part of: the remote packs objects by whole output.
    pub fn materialise(&self, tree: &Tree, wholes: &[Arc<Tree>]) -> Result<Vec<Damage>, CacheError> {
        let mut damage = self.local.check(tree)?;
        let Some(remote) = &self.remote else { return Ok(damage) };
        for whole in wholes {
            if damage.is_empty() {
                break;
            }
            let wanted = damage.iter().map(|damage| damage.digest).collect();
            if remote.fetch(&self.local, &[whole], &wanted)?.objects > 0 {
                damage = self.local.check(tree)?;
            }
        }
        Ok(damage)
    }

    /// Fetches the objects of some whole outputs that are not here, in few requests. What cannot be fetched stays
    /// missing.
    pub fn fetch_missing(&self, wholes: &[Arc<Tree>]) -> Result<Fetched, CacheError> {
        let Some(remote) = &self.remote else { return Ok(Fetched::default()) };
        let (mut incomplete, mut wanted): (Vec<&Tree>, BTreeSet<Digest>) = (Vec::new(), BTreeSet::new());
        for whole in wholes {
            let missing = self.local.missing(whole)?;
            if !missing.is_empty() {
                incomplete.push(whole);
                wanted.extend(missing);
            }
        }
        remote.fetch(&self.local, &incomplete, &wanted)
    }
}
