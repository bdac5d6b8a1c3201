//! Lists of per-image records in the remote: finding those of a family and reading them.

use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;

use super::circuit_breaker::RequestKind;
use super::{Answer, LONGEST, QUICK, Question, RemoteStore};
use crate::cache::gate::Entry;
use crate::digest::Digest;

/// Most lists of a family that are looked at: ten answers of a server.
const MOST_LISTED: usize = 10_000;

impl RemoteStore {
    /// Names and sizes of the lists of a family, newest first, equally old ones by name. A remote that does not list its
    /// files gives an empty answer: some servers let a key read and not list, so that a refusal is no failure of the remote. It is
    /// not asked again then.
    pub(in crate::cache) fn item_lists(&self, family: &Digest) -> Vec<(Digest, u64)> {
        if !self.lists || self.is_listing_refused.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.wait(self.list_family(family)).flatten().unwrap_or_default()
    }

    async fn list_family(&self, family: &Digest) -> Option<Vec<(Digest, u64)>> {
        let _permit = self.permits.acquire().await.ok()?;
        if !self.breaker().allows(RequestKind::Read) {
            return None;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let folder = Path::from(format!("v1/items/{family}"));
        let listing = self.objects.list(Some(&folder)).take(MOST_LISTED).try_collect::<Vec<_>>();
        let answer = tokio::time::timeout(QUICK.mul_f64(self.stretch), listing).await;
        let Ok(Ok(mut files)) = answer else {
            tracing::debug!("`{}` does not list `{folder}`: {answer:?}", self.address);
            self.is_listing_refused.store(true, Ordering::Relaxed);
            return None;
        };
        files.sort_by(|one, other| {
            other.last_modified.cmp(&one.last_modified).then(one.location.cmp(&other.location))
        });
        let named =
            |file: object_store::ObjectMeta| Some((file.location.filename()?.parse().ok()?, file.size));
        Some(files.into_iter().filter_map(named).collect())
    }

    /// Reads a list of the size that the remote states; `None` if it is not there, or not read.
    pub(in crate::cache) fn item_list(&self, entry: Entry, size: u64) -> Option<Vec<u8>> {
        match self.get_all(&[Question { entry, most: size }], LONGEST).pop()? {
            Answer::File(bytes) => Some(bytes),
            Answer::Refused(flaw) => {
                self.refuse(entry, flaw);
                None
            }
            Answer::Absent | Answer::None => None,
        }
    }
}
